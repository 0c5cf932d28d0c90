"""Problems of data: each has a stable code, a severity, a place and a hint.

Every problem goes to a `ProblemSink`. The sink decides: training's `refuse` raises at the first
error, validation's `problem_tally.ProblemTally` counts them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from convo_cli.errors import DataError, typeable

Severity = Literal["error", "warning"]

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")


class Kind(NamedTuple):
    """The severity and hint that all problems of one code share."""

    severity: Severity
    hint: str


def _error(hint: str) -> Kind:
    return Kind("error", hint)


def _warning(hint: str) -> Kind:
    return Kind("warning", hint)


_WRITE_JSON = (
    "write each line with a JSON library, for example json.dumps(dialogue, ensure_ascii=False)"
)
_ONE_A_LINE = "write one dialogue a line: jq -c '.[]' dialogues.json > dialogues.jsonl"
_ONLY_TEXT = "a turn is one text; turn other content into text, or leave the turn out"

KINDS: dict[str, Kind] = {
    # The file is not JSON Lines at all.
    "empty-file": _error("check the command that wrote the file"),
    "git-lfs-pointer": _error("fetch the real file: git lfs pull"),
    "html-page": _error(
        "the download ended at a web page (a login, an error); download the file itself"
    ),
    "csv-file": _error(
        "convert each dialogue to one JSON line, for example with Python's csv and json modules"
    ),
    "plain-text": _error(
        "convert each dialogue to one JSON line, or download the file again if this is no data"
    ),
    "pretty-printed-json": _error(
        "one line per value: jq -c . in.json > out.jsonl (a stream of objects) or jq -c '.[]' "
        "in.json > out.jsonl"
    ),
    "utf-16": _error("convert the file: iconv -f UTF-16 -t UTF-8 in.jsonl > out.jsonl"),
    "binary-file": _error("unpack or export it to JSON Lines first"),
    "wrong-compression": _error(
        "the name must end in .gz for gzip, .zst for Zstandard, and in neither for plain text; a "
        "pipe must be unpacked "
        "before: zcat data.jsonl.gz | convo validate-data -"
    ),
    "damaged-file": _error("the file is cut short or damaged; copy or download it again"),
    # The line is not strict JSON.
    "line-too-long": _error(
        "one dialogue a line; a line this long is several dialogues or no dialogue"
    ),
    "stray-bom": _error("files were joined; remove U+FEFF from the start of the line"),
    "not-utf8": _error(
        "convert the file to UTF-8: iconv -f WINDOWS-1252 -t UTF-8 in.jsonl > out.jsonl"
    ),
    "invalid-json": _error(_WRITE_JSON),
    "truncated-json": _error(
        "the line was cut off, or a quote or bracket is missing; write the line again"
    ),
    "extra-data": _error("one JSON value a line; break the line in two or remove what follows"),
    "not-a-number": _error("NaN and Infinity are not JSON; leave the key out or write null"),
    "number-too-large": _error("write the number as a text"),
    "duplicate-key": _error("keep one of the two; readers disagree about which one counts"),
    "lone-surrogate": _error(
        "half of a UTF-16 pair, from text cut in the middle of a character; remove it"
    ),
    "nul-character": _error("remove U+0000 from the text"),
    "control-character": _error("remove it; only newline (\\n) and tab (\\t) may stand in a text"),
    "nesting-too-deep": _error(
        "leave out the nested value; a dialogue needs no more than four levels"
    ),
    # The value is not a dialogue.
    "unknown-shape": _error(
        'write ["Hello", "Hi!"] or {"messages": [{"role": "user", "content": "Hello"}, …]}; turns, '
        "conversations, "
        "prompt + completion and instruction + output are read too"
    ),
    "array-of-dialogues": _error(_ONE_A_LINE),
    "empty-dialogue": _error("remove the line"),
    "not-a-turn": _error(
        'a turn is a text, or an object such as {"role": "user", "content": "Hello"}'
    ),
    "mixed-turns": _error("make every turn a text, or every turn an object"),
    "missing-key": _error(
        'a turn needs a speaker and a text: {"role": "user", "content": "Hello"}'
    ),
    "text-not-string": _error(_ONLY_TEXT),
    "empty-utterance": _error(
        "remove the turn, or the whole line where the dialogue makes no sense without it"
    ),
    "unknown-speaker": _error(
        "list every name of a role in the config, for example data.speakers.user: [user, human, "
        "alice], and pass it "
        "with --config config.yaml"
    ),
    "system-not-first": _error(
        "put the system turn first, or merge its text into the turn before or after it"
    ),
    "train-value": _error(
        'write "train": true (1 and null mean the same) or "train": false (or 0); other weights '
        "are not supported; "
        "rename the key if it means something else"
    ),
    "train-key": _error(
        'write "train": true or "train": false on the turn or the dialogue; rename the key if it '
        "means something else"
    ),
    "train-conflict": _error("keep one of the two"),
    "history": _error(
        'write the earlier turns as [["question", "answer"], …] beside a prompt or instruction, or '
        "as turns of the list"
    ),
    "reasoning": _error(
        "keep it (trained on as <think>…</think> before the answer) or drop it: data.reasoning in "
        "the config, "
        "--set data.reasoning=drop for train, --reasoning drop for validate-data and evaluate"
    ),
    "reasoning-place": _error(
        "write it into the turn of the assistant that it belongs to, or remove the key"
    ),
    "reasoning-tags": _error(
        "write <think> before the reasoning and </think> after it, or remove the tag"
    ),
    "reasoning-twice": _error("keep one of the two"),
    "no-target": _error(
        "remove the dialogue, or train on both sides with dialogue.train_on: all (and --config)"
    ),
    # The dialogue cannot be encoded: found by the pre-flight, which knows the tokenizer.
    "not-renderable": _error("set dialogue.template: turns or chatml, or change the dialogue"),
    "turn-too-long": _error("raise dialogue.max_length, or set dialogue.long_turns: split or drop"),
    "end-not-learnt": _error(
        "a model that never learns to stop never stops; set dialogue.template: turns or chatml"
    ),
    "nothing-to-train": _error(
        "set --first-speaker or data.speakers so that the data has an assistant"
    ),
    # Legal, but rarely intended.
    "blank-line": _warning("remove it; some tools stop or fail at a blank line"),
    "unread-text": _warning(
        "put the text into a turn if it is to be trained on; remove the key if not"
    ),
    "misspelt-key": _warning("rename the key; convo does not read it as it is"),
    "duplicate": _warning("remove repeated dialogues unless they are meant to weigh more"),
    "leakage": _warning("remove them from one of the files; scores on seen dialogues say nothing"),
    "one-turn": _warning(
        "a dialogue needs a turn and a reply to teach anything about conversation"
    ),
    "repeated-turn": _warning("remove one of the two; a message was probably saved twice"),
    "label-row": _warning("these are labels or column names, not utterances; remove them"),
    "null-text": _warning("looks like a missing value written as text; remove the turn if it is"),
    "speaker-prefix": _warning(
        'name the speaker in the turn ({"role": "user", …}) and keep the text to what is said'
    ),
    "encoded-value": _warning(
        "a value was written as text where its text was meant; write what is inside it"
    ),
    "html-entity": _warning("decode the text, for example with Python's html.unescape"),
    "escape-sequence": _warning("the text was escaped twice; decode it once more"),
    "special-token": _warning("left over from another model's format; save the text without it"),
    "subword-mark": _warning(
        "▁, Ġ and ## mark pieces of words in tokenizer output; save the text, not the pieces"
    ),
    "stray-control": _warning(
        "DEL, U+0080 to U+009F, U+2028 and U+2029 are seldom meant and often a wrong encoding; "
        "remove them"
    ),
    "zero-width": _warning("invisible characters cost tokens and split words; remove them"),
    "bidi-override": _warning("it shows text in another order than a model reads it; remove it"),
    "replacement-character": _warning(
        "a character was lost when the text was converted; convert the source again"
    ),
    "private-use": _warning(
        "it means something in one font only; write what it stood for, or remove it"
    ),
    "mojibake": _warning(
        "the text was read in a wrong encoding; convert the source again (ftfy can often repair it)"
    ),
    "long-utterance": _warning("check that it is one utterance"),
    "long-dialogue": _warning("check that it is one dialogue"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at one place. Line and column are 1-based, in characters of the line; 0 while
    not yet known.
    """

    code: str
    message: str
    path: str = "$"
    column: int = 0
    line: int = 0
    file: str = ""

    @property
    def severity(self) -> Severity:
        return KINDS[self.code].severity

    @property
    def hint(self) -> str:
        return KINDS[self.code].hint

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.file else f"line {self.line}"
        return f"{where} {self.path} {self.message}"


@dataclass(frozen=True, slots=True)
class LongTurn(Problem):
    """A turn that fits no window; ``needed`` is the smallest dialogue.max_length at which it
    fits.
    """

    needed: int = 0


ProblemSink = Callable[[Problem], None]


class ProblemError(DataError):
    """The first error met by a reader that cannot continue without the line."""

    def __init__(self, problem: Problem) -> None:
        everything = (
            f"convo validate-data {typeable(problem.file)}"
            if problem.file
            else "convo validate-data"
        )
        super().__init__(
            str(problem), hint=f"{problem.hint}\n      see every problem: {everything}"
        )
        self.problem = problem


def refuse(problem: Problem) -> None:
    """Raise at an error and ignore a warning: the sink of training."""
    if problem.severity == "error":
        raise ProblemError(problem)


def at_line(problem: Problem, file: str, line: int) -> Problem:
    """Return the problem of a whole line with its place."""
    return replace(problem, column=1, line=line, file=file)


def no_target(train_on: str) -> Problem:
    """Return the problem of a dialogue without a target."""
    return Problem("no-target", f"no turn of the dialogue is trained on (train_on: {train_on})")


def kind_of(value: Any) -> str:
    """Describe the kind of a JSON value in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return (
            "a list of parts"
            if value and all(isinstance(item, dict) for item in value)
            else "a list"
        )
    if isinstance(value, (str, dict)):
        return "a text" if isinstance(value, str) else "an object"
    return "a number"


def member(path: str, key: str) -> str:
    """Return the path of ``key`` inside the object at ``path``."""
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{quoted(key)}]"


def quoted(text: str, limit: int = 40) -> str:
    """Quote a text for a message: shortened, with escapes for characters that a terminal cannot
    show.
    """
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return '"' + "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown) + '"'
