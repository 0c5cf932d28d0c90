"""Reads data files as training would and reports on all of them instead of stopping at the first problem.

Streams: one line at a time, plus 16 bytes for each dialogue to find it again, counters, and capped lists.
"""

from __future__ import annotations

import hashlib
import string
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from convo_cli.config.schema import DataConfig, TrainOn
from convo_cli.data.dialogue import ROLES, has_target
from convo_cli.data.formats import LocatedTurn, shape_of, to_turns, unread_keys
from convo_cli.data.problems import KINDS, Problem, ProblemSink, quoted
from convo_cli.data.reader import check_source, iter_lines
from convo_cli.data.report import DataReport, FileReport, Leak, ProblemGroup, spread
from convo_cli.data.strict_json import decode, place
from convo_cli.data.suspicions import misspelt, suspect_turns
from convo_cli.data.unpack import STDIN
from convo_cli.events import Event, Progress, Report

MAX_PROBLEMS = 5
"""Problems listed of each code and file; all are counted."""

_MAX_UNREAD_KEYS = 20
_PROGRESS_BYTES = 2**20
_MAX_KEY_LENGTH = 40
_OTHER_KEYS = "(other keys)"
_SCRIPTS = {"HIRAGANA": "Kana", "KATAKANA": "Kana", "KATAKANA-HIRAGANA": "Kana", "CJK": "Han", "IDEOGRAPHIC": "Han"}
_LETTERS = string.ascii_letters.encode()


def _tell_nobody(event: Event) -> None:
    pass


def validate_files(
    paths: Sequence[str],
    data_config: DataConfig,
    *,
    train_on: TrainOn = "assistant",
    max_problems: int = MAX_PROBLEMS,
    report: Report = _tell_nobody,
) -> DataReport:
    """Check every line of every file, and the files against each other.

    A dialogue with nothing to learn under ``train_on`` is an error. ``max_problems`` limits the problems listed of
    each code and file. A file that cannot be opened raises `UsageError` before anything is read.
    """
    for path in paths:
        check_source(path)
    tallies = [_FileTally(path, train_on, max_problems) for path in paths]
    for tally in tallies:
        _read(tally, data_config, report)
        tally.finish()
    leaks = [
        leak
        for index, tally in enumerate(tallies)
        for earlier in tallies[:index]
        if (leak := tally.find_leak(earlier)) is not None
    ]
    return DataReport(tuple(tally.as_report() for tally in tallies), tuple(leaks))


def _read(tally: _FileTally, data_config: DataConfig, report: Report) -> None:
    is_plain = tally.file != STDIN and not tally.file.lower().endswith((".gz", ".zst"))
    num_bytes = Path(tally.file).stat().st_size if is_plain else 0
    done = told = 0
    for number, raw in iter_lines(tally.file, tally.note):
        tally.add_line(raw, number, data_config)
        done += len(raw) + 1
        if done - told >= _PROGRESS_BYTES:
            told = done
            report(Progress(f"reading {tally.file}", done, num_bytes or None))


class _FileTally:
    """What is known about one file so far."""

    def __init__(self, file: str, train_on: TrainOn, max_problems: int) -> None:
        self.file = file
        self._train_on = train_on
        self._max_problems = max_problems
        self._num_problems: Counter[str] = Counter()
        self._listed: dict[str, list[Problem]] = {}
        self._counts: Counter[str] = Counter()
        self._roles: Counter[str] = Counter()
        self._shapes: Counter[str] = Counter()
        self._unread_keys: Counter[str] = Counter()
        self._turns_per_dialogue: Counter[int] = Counter()
        self._characters_per_dialogue: Counter[int] = Counter()
        self._num_ascii_letters = 0
        self._characters: Counter[str] = Counter()
        # Of each dialogue, in order: the hash of its texts and its line.
        self._hashes = array("Q")
        self._lines = array("Q")

    def note(self, problem: Problem, line: int = 0, raw: bytes = b"") -> None:
        """Count a problem, and list it among the first; ``line`` and ``raw`` place one that has no line yet."""
        self._num_problems[problem.code] += 1
        listed = self._listed.setdefault(problem.code, [])
        if len(listed) < self._max_problems:
            listed.append(problem if problem.line else place(problem, self.file, line, raw))

    def add_line(self, raw: bytes, line: int, data_config: DataConfig) -> None:
        """Read one line and count all that is in it."""

        def found(problem: Problem) -> None:
            self.note(problem, line, raw)

        self._counts["lines"] += 1
        value = decode(raw, found)
        turns = None if value is msgspec.UNSET else to_turns(value, data_config, found)
        if turns is None:
            return
        self._lines.append(line)
        self._add_turns(turns)
        self._shapes[shape_of(value) or ""] += 1
        for path, key in unread_keys(value):
            self._add_unread_key(path, key, found)
        if has_target([turn for _, turn in turns], self._train_on):
            self._counts["with_target"] += 1
        else:
            found(Problem("no-target", f"no turn of the dialogue is learnt (train_on: {self._train_on})"))
        for problem in suspect_turns(turns):
            found(problem)

    def _add_turns(self, turns: list[LocatedTurn]) -> None:
        texts = [turn.text for _, turn in turns]
        roles = [turn.role for _, turn in turns]
        num_characters = sum(map(len, texts))
        self._roles.update(roles)
        self._turns_per_dialogue[len(turns)] += 1
        self._characters_per_dialogue[num_characters] += 1
        self._counts.update(
            characters=num_characters,
            untrained=sum(not turn.is_trained for _, turn in turns),
            ending_on_user=roles[-1] == "user",
            same_role=any(role == after for role, after in pairwise(roles)),
            one_turn=sum(role != "system" for role in roles) < 2,
            without_assistant="assistant" not in roles,
        )
        # No text holds a NUL, so it keeps ["a b"] and ["a", "b"] apart.
        joined = "\0".join(texts)
        self._hashes.append(_hash(joined))
        if joined.isascii():
            self._num_ascii_letters += len(joined) - len(joined.encode().translate(None, _LETTERS))
        else:
            self._characters.update(joined)

    def _add_unread_key(self, path: str, key: str, found: ProblemSink) -> None:
        name = key[:_MAX_KEY_LENGTH]
        if name not in self._unread_keys and len(self._unread_keys) >= _MAX_UNREAD_KEYS:
            name = _OTHER_KEYS
        self._unread_keys[name] += 1
        if (meant := misspelt(key)) is not None:
            found(Problem("misspelt-key", f"the key {quoted(key)} is not read; did you mean {meant}?", path))

    def finish(self) -> None:
        """Add what only the whole file can tell."""
        hashes = self._hash_array()
        _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        original = first[inverse]
        repeats = np.flatnonzero(original != np.arange(len(hashes)))
        self._counts["duplicates"] = len(repeats)
        for index in repeats:
            message = f"the same dialogue as line {self._lines[original[index]]}"
            self.note(Problem("duplicate", message, column=1, line=self._lines[index], file=self.file))
        if self._lines and not self._counts["with_target"]:
            message = "no dialogue of the file has a turn that is learnt"
            self.note(Problem("nothing-to-train", message, column=1, line=self._lines[0], file=self.file))

    def find_leak(self, earlier: _FileTally) -> Leak | None:
        """Note every dialogue that the earlier file has as well."""
        theirs = earlier._hash_array()
        shared = np.flatnonzero(np.isin(self._hash_array(), theirs))
        if not len(shared):
            return None
        examples: list[tuple[int, int]] = []
        for index in shared:
            line = self._lines[index]
            message = f"the dialogue is also in {earlier.file}"
            if len(examples) < self._max_problems:
                their_line = earlier._lines[int(np.argmax(theirs == self._hashes[index]))]
                examples.append((their_line, line))
                message = f"{message}, line {their_line}"
            self.note(Problem("leakage", message, column=1, line=line, file=self.file))
        return Leak(earlier.file, self.file, len(shared), tuple(examples))

    def as_report(self) -> FileReport:
        return FileReport(
            file=self.file,
            num_lines=self._counts["lines"],
            num_dialogues=len(self._lines),
            num_turns=self._roles.total(),
            num_turns_by_role={role: self._roles[role] for role in ROLES},
            num_untrained_turns=self._counts["untrained"],
            num_characters=self._counts["characters"],
            shapes=dict(self._shapes.most_common()),
            unread_keys=dict(self._unread_keys.most_common()),
            turns_per_dialogue=spread(self._turns_per_dialogue),
            characters_per_dialogue=spread(self._characters_per_dialogue),
            scripts=self._scripts(),
            num_ending_on_user=self._counts["ending_on_user"],
            num_with_same_role_in_a_row=self._counts["same_role"],
            num_one_turn=self._counts["one_turn"],
            num_without_assistant=self._counts["without_assistant"],
            num_duplicates=self._counts["duplicates"],
            problem_groups=tuple(self._problem_groups()),
        )

    def _problem_groups(self) -> Iterator[ProblemGroup]:
        for code in sorted(self._num_problems, key=lambda code: KINDS[code].severity != "error"):
            kind = KINDS[code]
            yield ProblemGroup(code, kind.severity, kind.hint, self._num_problems[code], tuple(self._listed[code]))

    def _scripts(self) -> dict[str, float]:
        letters: Counter[str] = Counter()
        if self._num_ascii_letters:
            letters["Latin"] = self._num_ascii_letters
        for char, count in self._characters.items():
            if char.isalpha():
                letters[_script(char)] += count
        total = sum(letters.values())
        return {script: count / total for script, count in letters.most_common()}

    def _hash_array(self) -> npt.NDArray[np.uint64]:
        return np.array(self._hashes, dtype=np.uint64)


def _hash(text: str) -> int:
    """64 bits of a text that are the same whatever its case, width and white space."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    digest = hashlib.blake2b(" ".join(folded.split()).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _script(letter: str) -> str:
    """The writing system of a letter, from its Unicode name: LATIN SMALL LETTER A, HALFWIDTH KATAKANA LETTER A."""
    words = unicodedata.name(letter, "OTHER").split()
    first = words[1] if words[0] in ("FULLWIDTH", "HALFWIDTH") and len(words) > 1 else words[0]
    return _SCRIPTS.get(first, first.capitalize())
