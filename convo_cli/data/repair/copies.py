"""Repaired copies of data files: good lines are copied byte for byte, others repaired or left out.

At most one block of lines is in memory. A file that is one pretty-printed value counts as one line,
and has its length limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from convo_cli.config.schema import DataConfig, TrainOn
from convo_cli.data.checks.exact import LineRules
from convo_cli.data.checks.problem_tally import MAX_PROBLEMS, ProblemGroup, ProblemTally
from convo_cli.data.conversions.commands import OUTPUT, by_import
from convo_cli.data.decompress import DAMAGED, STDIN, open_unpacked
from convo_cli.data.problems import Problem
from convo_cli.data.reader import MAX_LINE_BYTES, check_source, iter_blocks
from convo_cli.data.repair.dialogues import (
    DialogueRepair,
    Judge,
    RepairedDialogue,
    first_of_each,
    obstacle,
)
from convo_cli.data.repair.lenient_json import BeyondRepairError, read_values
from convo_cli.data.repair.repairs import REPAIRS, RepairGroup, RepairReport
from convo_cli.events import Emit, Progress, ignore

_TOO_LARGE = f"--fix reads at most {MAX_LINE_BYTES // 2**20} MiB of such a file at once; import it"
_PROGRESS_BYTES = 2**20


def repair_files(
    paths: Sequence[str],
    write: Callable[[bytes], object],
    data_config: DataConfig,
    *,
    train_on: TrainOn = "assistant",
    max_problems: int = MAX_PROBLEMS,
    emit: Emit = ignore,
    judge: Judge | None = None,
) -> RepairReport:
    """Pass every line that can be trained on to ``write``, with its line end.

    No written line has an error, and ``judge`` accepts each of them. A file that cannot be opened
    raises `UsageError` before anything is read.
    """
    for path in paths:
        check_source(path)
    dialogues = DialogueRepair(LineRules(data_config, train_on), judge)
    repair = _Repair(write, dialogues, max_problems)
    for path in paths:
        _repair_file(path, repair, emit)
    return repair.as_report()


def _repair_file(path: str, repair: _Repair, emit: Emit) -> None:
    spread: list[Problem] = []

    def found(problem: Problem) -> None:
        if problem.code == "pretty-printed-json" and path != STDIN:
            spread.append(problem)
        else:
            repair.add_problem(problem)

    num_bytes = 0 if path == STDIN else Path(path).stat().st_size
    last_emitted = 0
    emit(Progress(f"repairing {path}", 0, num_bytes or None, "bytes"))
    for block in iter_blocks(path, found):
        for number, raw in zip(block.numbers.tolist(), block.lines(), strict=True):
            repair.add_line(raw, path, number)
        if block.end - last_emitted >= _PROGRESS_BYTES:
            last_emitted = block.end
            emit(Progress(f"repairing {path}", block.end, num_bytes or None, "bytes"))
    for problem in spread:
        repair.add_spread_value(path, problem)


class _Repair:
    """Writes lines, and counts the unchanged, repaired and left-out ones."""

    def __init__(
        self, write: Callable[[bytes], object], dialogues: DialogueRepair, max_problems: int
    ) -> None:
        self._write = write
        self._dialogues = dialogues
        self._counts: Counter[str] = Counter()
        self._repaired = ProblemTally(max_problems)
        self._left_out = ProblemTally(max_problems)

    def add_line(self, raw: bytes, file: str, line: int) -> None:
        """Write the line, as it is or repaired; leave it out if neither is possible."""
        self._counts["lines"] += 1
        problems = self._dialogues.problems(raw, file, line)
        if obstacle(problems) is not None or any(problem.code in REPAIRS for problem in problems):
            self._add_repaired(raw, problems)
        else:
            self._write_unchanged(raw)

    def add_spread_value(self, file: str, problem: Problem) -> None:
        """Write the dialogues of a file that is one JSON value over several lines."""
        try:
            with open_unpacked(file) as (_, stream):
                content = stream.read(MAX_LINE_BYTES + 1)
        except DAMAGED:
            content = b""
        self._counts["lines"] += 1
        if len(content) > MAX_LINE_BYTES:
            problem, content = replace(problem, advice=by_import(_TOO_LARGE)), b""
        self._add_repaired(content, [problem], is_file=True)

    def add_problem(self, problem: Problem) -> None:
        """Count a problem of blank lines or of the whole file."""
        (self._repaired if problem.code == "blank-line" else self._left_out)(problem)

    def as_report(self) -> RepairReport:
        return RepairReport(
            num_lines=self._counts["lines"],
            num_unchanged=self._counts["unchanged"],
            num_repaired=self._counts["repaired"],
            num_left_out=self._counts["left out"],
            num_written=self._counts["written"],
            repaired=_groups(self._repaired, lambda group: REPAIRS[group.code]),
            left_out=_groups(self._left_out, _what_to_do),
        )

    def _add_repaired(self, raw: bytes, problems: list[Problem], *, is_file: bool = False) -> None:
        try:
            values = read_values(raw, is_file=is_file)
        except BeyondRepairError:
            values = []
        counts, first = Counter(problem.code for problem in problems), first_of_each(problems)
        dialogues = [self._dialogues.repair(own, value, counts, first) for own, value in values]
        error = obstacle(problems)
        if error is None and len(dialogues) == 1:
            (only,) = dialogues
            if only.error is not None or not only.repaired:
                self._write_unchanged(raw)
                return
        new_errors = (
            each.error
            for each in dialogues
            if each.error is not None and each.error.code not in counts
        )
        self._write_good(dialogues, next(new_errors, None) or error or problems[0])

    def _write_good(self, dialogues: list[RepairedDialogue], problem: Problem) -> None:
        """Write the good dialogues of a line; report ``problem`` if there are none."""
        good = [each for each in dialogues if each.error is None]
        repaired: dict[str, Problem] = {}
        errors = [each.error for each in dialogues if each.error is not None] if good else [problem]
        for each in good:
            self._write_line(each.line)
            for gone in each.repaired:
                repaired.setdefault(gone.code, gone)
        for gone in repaired.values():
            self._repaired(gone)
        for error in errors:
            self._left_out(error)
        self._counts["repaired"] += bool(good)
        self._counts["left out"] += bool(errors)

    def _write_unchanged(self, raw: bytes) -> None:
        self._counts["unchanged"] += 1
        self._write_line(raw)

    def _write_line(self, raw: bytes) -> None:
        self._counts["written"] += 1
        self._write(raw + b"\n")


def _what_to_do(group: ProblemGroup) -> str:
    is_this_repair = group.hint.endswith(f" --fix {OUTPUT}")
    return "write it as one value of JSON" if is_this_repair else group.hint


def _groups(tally: ProblemTally, what: Callable[[ProblemGroup], str]) -> tuple[RepairGroup, ...]:
    return tuple(
        RepairGroup(group.code, what(group), group.count, group.problems)
        for group in tally.groups()
    )
