"""What `validate-data --fix` writes: good lines as they are, others where `mend` makes them good, the rest not at all.

One line is in memory at a time; of a file that is one pretty-printed value all of it, up to the limit of a line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from convo_cli.config.schema import DataConfig, TrainOn
from convo_cli.data.checks.report import ProblemGroup
from convo_cli.data.checks.statistics import ProblemTally
from convo_cli.data.checks.suspicions import suspect_turns
from convo_cli.data.decompress import DAMAGED, STDIN, open_unpacked
from convo_cli.data.dialogue import Turn, has_target, is_excluded
from convo_cli.data.problems import Problem, quoted
from convo_cli.data.reader import MAX_LINE_BYTES, check_source, iter_lines
from convo_cli.data.repair.lines import BeyondRepairError, dump, mend_value, read_values
from convo_cli.data.shapes.formats import read_value
from convo_cli.data.shapes.known_keys import misspelt
from convo_cli.data.strict_json import decode, place
from convo_cli.events import Emit, Event, Progress

Judge: TypeAlias = Callable[[Sequence[Turn]], Problem | None]
"""Returns the problem for which a config refuses a dialogue that has no error of its own; None where it accepts it."""

_PROGRESS_BYTES = 2**20
_NO_DIALOGUE = ("label-row", "$")

REPAIRS = {
    "pretty-printed-json": "each value got a line",
    "array-of-dialogues": "each dialogue got a line",
    "extra-data": "each value got a line",
    "blank-line": "dropped",
    "stray-bom": "removed",
    "not-utf8": "read as Windows-1252",
    "invalid-json": "a last comma was removed, or Python's spelling read",
    "not-a-number": "became null",
    "number-too-large": "became a text",
    "duplicate-key": "one of two equal keys was kept",
    "lone-surrogate": "removed",
    "nul-character": "removed",
    "control-character": "removed, or made a newline",
    "empty-utterance": "the turn was dropped",
    "text-not-string": "the text of its only part was kept",
    "train-value": "became true or false",
    "train-key": "a misspelt key was renamed",
    "unknown-shape": "a misspelt key was renamed",
    "missing-key": "a misspelt key was renamed",
    "misspelt-key": "renamed",
    "zero-width": "removed",
    "bidi-override": "removed",
    "stray-control": "removed, or made what it stood for",
    "html-entity": "decoded",
    "mojibake": "read in the right encoding",
}
"""What is done about each kind of problem that can be repaired. Where another is an error, or nothing but labels, the
line is left out; any other warning stays with its line."""


@dataclass(frozen=True, slots=True)
class RepairGroup:
    """All lines that were mended, or left out, for one code: how many, and the first of them."""

    code: str
    what: str
    """What was done; for lines left out, the hint."""
    count: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class RepairReport:
    """Lines are those that are not blank. A line can be mended in several ways, and become several lines."""

    num_lines: int
    num_unchanged: int
    """Lines written byte for byte."""
    num_repaired: int
    num_left_out: int
    """Lines from which at least one dialogue was left out; whole files that are no JSON Lines are not counted."""
    num_written: int
    repaired: tuple[RepairGroup, ...]
    left_out: tuple[RepairGroup, ...]


def _tell_nobody(event: Event) -> None:
    pass


def repair_files(
    paths: Sequence[str],
    write: Callable[[bytes], object],
    data_config: DataConfig,
    *,
    train_on: TrainOn = "assistant",
    max_listed: int = 5,
    emit: Emit = _tell_nobody,
    judge: Judge | None = None,
) -> RepairReport:
    """Hand every line that can be trained on to ``write``, each with its line end, whatever file it comes from.

    No written line has an error, or is refused by ``judge``. A file that cannot be opened raises `UsageError` before
    anything is read.
    """
    for path in paths:
        check_source(path)
    repair = _Repair(write, data_config, train_on, max_listed, judge)
    for path in paths:
        _repair_file(path, repair, emit)
    return repair.as_report()


def _repair_file(path: str, repair: _Repair, emit: Emit) -> None:
    is_plain = path != STDIN and not path.lower().endswith((".gz", ".zst"))
    num_bytes = Path(path).stat().st_size if is_plain else 0

    spread: list[Problem] = []

    def found(problem: Problem) -> None:
        if problem.code == "pretty-printed-json" and path != STDIN:
            spread.append(problem)
        else:
            repair.add_problem(problem)

    done = told = 0
    for number, raw in iter_lines(path, found):
        repair.add_line(raw, path, number)
        done += len(raw) + 1
        if done - told >= _PROGRESS_BYTES:
            told = done
            emit(Progress(f"repairing {path}", done, num_bytes or None))
    for problem in spread:
        repair.add_spread_value(path, problem)


@dataclass(frozen=True, slots=True)
class _Mended:
    """One dialogue of a line: how it reads now, what was wrong and is no more, and what still is."""

    line: bytes
    repaired: tuple[Problem, ...]
    error: Problem | None


class _Repair:
    """What was done so far."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        data_config: DataConfig,
        train_on: TrainOn,
        max_listed: int,
        judge: Judge | None,
    ) -> None:
        self._write = write
        self._data_config = data_config
        self._train_on = train_on
        self._judge = judge
        self._counts: Counter[str] = Counter()
        self._repaired = ProblemTally(max_listed)
        self._left_out = ProblemTally(max_listed)

    def add_line(self, raw: bytes, file: str, line: int) -> None:
        """Write the line, or what can be made of it."""
        self._counts["lines"] += 1
        problems = self._check(raw, file, line)
        if _obstacle(problems) is not None or any(problem.code in REPAIRS for problem in problems):
            self._add_mended(raw, problems)
        else:
            self._keep(raw)

    def add_spread_value(self, file: str, problem: Problem) -> None:
        """Write the dialogues of a file that is JSON, but not a value a line; it counts as one line."""
        try:
            with open_unpacked(file) as (_, stream):
                content = stream.read(MAX_LINE_BYTES + 1)
        except DAMAGED:
            content = b""
        self._counts["lines"] += 1
        self._add_mended(content if len(content) <= MAX_LINE_BYTES else b"", [problem])

    def add_problem(self, problem: Problem) -> None:
        """Note what is wrong between the lines or with the whole file."""
        (self._repaired if problem.code == "blank-line" else self._left_out)(problem)

    def as_report(self) -> RepairReport:
        return RepairReport(
            num_lines=self._counts["lines"],
            num_unchanged=self._counts["unchanged"],
            num_repaired=self._counts["repaired"],
            num_left_out=self._counts["left out"],
            num_written=self._counts["written"],
            repaired=_groups(self._repaired, lambda group: REPAIRS[group.code]),
            left_out=_groups(self._left_out, lambda group: group.hint),
        )

    def _add_mended(self, raw: bytes, problems: list[Problem]) -> None:
        try:
            counts, first = Counter(problem.code for problem in problems), _first_of_each(problems)
            mended = [self._mend(own, value, counts, first) for own, value in read_values(raw)]
        except BeyondRepairError:
            mended = []
        if len(mended) == 1 and _obstacle(problems) is None and (mended[0].error or not mended[0].repaired):
            self._keep(raw)
            return
        found_later = (each.error for each in mended if each.error is not None and each.error.code not in counts)
        self._write_good(mended, next(found_later, None) or _obstacle(problems) or problems[0])

    def _write_good(self, mended: list[_Mended], problem: Problem) -> None:
        """Write what is good among the dialogues of a line; ``problem`` is named if none is."""
        good = [each for each in mended if each.error is None]
        repaired: dict[str, Problem] = {}
        for gone in (gone for each in good for gone in each.repaired):
            repaired.setdefault(gone.code, gone)
        errors = [each.error for each in mended if each.error is not None] if good else [problem]
        for each in good:
            self._write_line(each.line)
        for gone in repaired.values():
            self._repaired(gone)
        for error in errors:
            self._left_out(error)
        self._counts["repaired"] += bool(good)
        self._counts["left out"] += bool(errors)

    def _mend(self, own: str | None, value: Any, counts: Counter[str], first: list[Problem]) -> _Mended:
        """Mend one dialogue of a line; ``own`` is its part of the line, where it has one.

        ``counts`` are the line's problems by code, and ``first`` holds the first of each.
        """
        file, line = first[0].file, first[0].line
        strict, mended = dump(value), dump(mend_value(value, self._data_config))
        if own is not None and mended == strict and _obstacle(self._check(own.encode(), file, line)) is None:
            mended = own
        later = [problem for problem in self._check(strict.encode(), file, line) if problem.code not in counts]
        after = self._check(mended.encode(), file, line)
        error = _obstacle(after)
        gone = counts + Counter(problem.code for problem in later) - Counter(problem.code for problem in after)
        repaired = tuple(problem for problem in (*first, *later) if problem.code in gone and problem.code in REPAIRS)
        return _Mended(mended.encode(), repaired, error and replace(error, column=1))

    def _check(self, raw: bytes, file: str, line: int) -> list[Problem]:
        """Return all problems of the line by itself; only the first of each code has a column."""
        problems: list[Problem] = []
        value = decode(raw, problems.append)
        reading = None if value is msgspec.UNSET else read_value(value, self._data_config, problems.append)
        if reading is not None:
            problems += (Problem("misspelt-key", quoted(key), path) for path, key, _ in reading.unread if misspelt(key))
            if not has_target([turn for _, turn in reading.turns], self._train_on):
                what = f"no turn of the dialogue is trained on (train_on: {self._train_on})"
                if is_excluded(turn for _, turn in reading.turns):
                    what = 'the data says "train": false for the whole dialogue'
                problems.append(Problem("no-target", what))
            if self._judge is not None and _obstacle(problems) is None:
                refused = self._judge([turn for _, turn in reading.turns])
                problems += [] if refused is None else [refused]
            problems += suspect_turns(reading.turns)
        first = set(map(id, _first_of_each(problems)))  # placing one means reading the line again
        return [
            place(problem, file, line, raw) if id(problem) in first else replace(problem, file=file, line=line)
            for problem in problems
        ]

    def _keep(self, raw: bytes) -> None:
        self._counts["unchanged"] += 1
        self._write_line(raw)

    def _write_line(self, raw: bytes) -> None:
        self._counts["written"] += 1
        self._write(raw + b"\n")


def _groups(tally: ProblemTally, what: Callable[[ProblemGroup], str]) -> tuple[RepairGroup, ...]:
    return tuple(RepairGroup(group.code, what(group), group.count, group.problems) for group in tally.groups())


def _first_of_each(problems: list[Problem]) -> list[Problem]:
    """Return the first problem of each code, in order; one of the whole line counts apart from those of its parts."""
    first: dict[tuple[str, bool], Problem] = {}
    for problem in problems:
        first.setdefault((problem.code, problem.path == "$"), problem)
    return list(first.values())


def _obstacle(problems: list[Problem]) -> Problem | None:
    """The first problem with which the line cannot be written: an error, or that all of it is labels."""
    return next((each for each in problems if each.severity == "error" or (each.code, each.path) == _NO_DIALOGUE), None)
