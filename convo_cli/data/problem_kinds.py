"""Kinds of problems in data: the severity of each code, and the hint that tells how to fix it.

The codes are part of the `--json` output.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from convo_cli.data.conversions.commands import Conversion, by_chat_import, by_fix, by_import

Severity = Literal["error", "warning"]


class Kind(NamedTuple):
    """The severity and the hint that all problems of one code share."""

    severity: Severity
    hint: str | Conversion


def _error(hint: str | Conversion) -> Kind:
    return Kind("error", hint)


def _warning(hint: str) -> Kind:
    return Kind("warning", hint)


_KEEP_ONE = "keep one of them"
_REMOVE = "remove it"
_CONVERT = (
    "convert the file, from the encoding in the message: iconv -f {} -t UTF-8 in.jsonl > out.jsonl"
)
_SPLIT = by_fix("write one dialogue per line")

KINDS: dict[str, Kind] = {
    # The file is not JSON Lines.
    "empty-file": _error("check the command that wrote the file"),
    "git-lfs-pointer": _error("download the real file: git lfs pull"),
    "html-page": _error(
        "the server sent a web page, often a login or an error; download the file itself"
    ),
    "csv-file": _error(by_import("convert the table")),
    "plain-text": _error(
        "convert each dialogue to one line of JSON; if this is not your data, download it again"
    ),
    "chat-log": _error(by_chat_import("NAME")),
    "pretty-printed-json": _error(_SPLIT),
    "utf-16": _error(_CONVERT.format("UTF-16")),
    "utf-32": _error(_CONVERT.format("UTF-32")),
    "binary-file": _error("unpack the file, or export it as JSON Lines"),
    "wrong-compression": _error(
        "rename the file: .gz for gzip, .zst for Zstandard, .jsonl for plain text; unpack what "
        "comes from a pipe: zcat data.jsonl.gz | convo validate-data -"
    ),
    "damaged-file": _error("the file is truncated or damaged; copy or download it again"),
    "large-window": _error(
        "compress it again: zstd -dc --long=31 data.jsonl.zst | zstd -o new.jsonl.zst"
    ),
    # The line is not strict JSON.
    "line-too-long": _error(by_import("convert an array of dialogues")),
    "stray-bom": _error("remove it; joining files leaves such marks"),
    "not-utf8": _error(
        "convert the file, for example from Windows-1252: iconv -f WINDOWS-1252 -t UTF-8 in.jsonl "
        "> out.jsonl"
    ),
    "invalid-json": _error(
        "write the line with a JSON library, for example json.dumps(dialogue, ensure_ascii=False)"
    ),
    "truncated-json": _error(
        "the line was cut off, or a closing quote or bracket is missing; write the line again"
    ),
    "extra-data": _error(by_fix("write one JSON value per line, or remove the rest")),
    "not-a-number": _error("write null instead, or remove the key"),
    "number-too-large": _error("write the number as a string, in double quotes"),
    "duplicate-key": _error("keep one of them; JSON readers disagree about which one counts"),
    "lone-surrogate": _error("remove it; it is left over when text is cut inside a character"),
    "nul-character": _error(_REMOVE),
    "control-character": _error("remove it; only newline (\\n) and tab (\\t) are allowed"),
    "nesting-too-deep": _error("remove the nested value; a dialogue needs at most four levels"),
    # The value is not a dialogue.
    "other-format": _error("convert each dialogue to one line of JSON"),
    "unknown-shape": _error(
        'write ["Hello", "Hi!"] or {"messages": [{"role": "user", "content": "Hello"}, …]}; all '
        "shapes that convo reads: docs/data.md"
    ),
    "missing-column": _error(
        "correct the path in data.columns, or add the key to the line; a system text and a history "
        "may be null"
    ),
    "array-of-dialogues": _error(_SPLIT),
    "empty-dialogue": _error("remove the line"),
    "not-a-turn": _error(
        'write the turn as a string, or as an object such as {"role": "user", "content": "Hello"}'
    ),
    "mixed-turns": _error("make every turn a string, or every turn an object"),
    "missing-key": _error(
        'give the turn a speaker and a text: {"role": "user", "content": "Hello"}'
    ),
    "text-not-string": _error("write the text as one string, or remove the turn"),
    "part-not-text": _error(
        "convo trains on text: remove the part, or describe it in words in a text part"
    ),
    "empty-utterance": _error(
        "remove the turn, or the whole line if the dialogue makes no sense without it"
    ),
    "unknown-speaker": _error(
        "give every speaker a role: data.speakers in config.yaml or --set "
        "'data.speakers.assistant=[NAME]'; in a chat of several people, data.speakers.keep_names: "
        "true makes all others users"
    ),
    "system-not-first": _error(
        "move the system turn to the start, or merge its text into the turn before or after it"
    ),
    "train-value": _error(
        'write "train": true or "train": false (1 and 0 mean the same); other weights are not '
        "supported; rename the key if it means something else"
    ),
    "train-key": _error(
        'write "train": true or "train": false on the turn or the dialogue; rename the key if it '
        "means something else"
    ),
    "train-conflict": _error(_KEEP_ONE),
    "history": _error(
        'write the earlier turns as [["question", "answer"], …] beside a prompt or an '
        "instruction, or add them to the list of turns"
    ),
    "tool-call": _error(
        'write a call as "tool_calls": [{"id": "c1", "type": "function", "function": {"name": '
        '"weather", "arguments": "{}"}}] on an assistant turn, and its result as the next turn, '
        '{"role": "tool", "tool_call_id": "c1", "content": "4 C"}'
    ),
    "reasoning": _error(
        "keep it (trained on as <think>…</think> before the answer) or drop it: data.reasoning in "
        "the config, --set data.reasoning=drop for train, --reasoning drop for validate-data and "
        "evaluate"
    ),
    "reasoning-place": _error("move it into the assistant turn that it belongs to, or remove it"),
    "reasoning-tags": _error(
        "write <think> before the reasoning and </think> after it, or remove the tag"
    ),
    "reasoning-twice": _error(_KEEP_ONE),
    "references": _error(
        "write other good replies as a list of texts on the assistant turn that they replace: "
        '"references": ["Hi there!"]; rename the key if it means something else'
    ),
    "no-target": _error(
        "remove the dialogue, or train on both speakers: dialogue.train_on: all in the config "
        "(validate-data needs --config to read it)"
    ),
    # The dialogue cannot be encoded. The pre-flight finds this, because it knows the tokenizer.
    "not-renderable": _error("set dialogue.template: turns or chatml, or change the dialogue"),
    "tools-not-rendered": _error(
        "train a model whose chat template knows tools, with dialogue.template: native, or leave "
        "these dialogues out: convo validate-data FILE --fix OUT --config config.yaml"
    ),
    "turn-too-long": _error("raise dialogue.max_length, or set dialogue.long_turns: split or drop"),
    "end-not-trained": _error(
        "a model that is not trained on the end token never stops; set dialogue.template: turns "
        "or chatml"
    ),
    "nothing-to-train": _error(
        "a file needs assistant turns that are trained on: name the speakers (--first-speaker, "
        'data.speakers), or remove "train": false'
    ),
    # The dialogue can be trained on, but is probably not as intended.
    "carriage-return": _warning("nothing to do: it is read as a newline (\\n)"),
    "blank-line": _warning("remove blank lines; some tools fail or stop at them"),
    "unread-text": _warning("move the text into a turn to train on it, or remove the key"),
    "misspelt-key": _warning("rename the key; convo ignores it under this name"),
    "duplicate": _warning("remove the copies, unless they are meant to be trained on more often"),
    "leakage": _warning("remove it from one of the files; it makes scores look too good"),
    "one-turn": _warning("add the reply, or remove the dialogue"),
    "repeated-turn": _warning("remove one of them; the turn was probably saved twice"),
    "label-row": _warning(
        "remove labels and column names; they are not a part of the conversation"
    ),
    "null-text": _warning("remove the turn if this is a missing value"),
    "speaker-prefix": _warning(
        'name the speaker in the role instead: {"role": "user", "content": "Hello"}'
    ),
    "encoded-value": _warning("write only the text that is inside this value"),
    "html-markup": _warning(
        "convert it to Markdown or plain text, for example with the package markdownify"
    ),
    "html-entity": _warning("decode it, for example with Python's html.unescape"),
    "escape-sequence": _warning("decode it; the text was escaped twice"),
    "special-token": _warning("remove it; it belongs to the format of another model"),
    "subword-mark": _warning(
        "write the original text; ▁, Ġ and ## mark parts of words in the output of a tokenizer"
    ),
    "stray-control": _warning("remove it; it often comes from a wrong encoding"),
    "zero-width": _warning("remove it; it costs tokens and splits words"),
    "bidi-override": _warning("remove it; people see the text in a different order from the model"),
    "replacement-character": _warning("convert the original text again; a character was lost here"),
    "private-use": _warning("replace it; only a particular font gives it a meaning"),
    "mojibake": _warning(
        "convert the original again, with the right encoding (ftfy can often repair the text)"
    ),
    "long-utterance": _warning("check that this is a single turn"),
    "long-dialogue": _warning("check that this is a single dialogue"),
}
