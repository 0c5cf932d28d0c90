"""Check and repair of one dialogue: its new line, the repaired problems, the remaining error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from convo_cli.data.checks.exact import LineRules, read_line
from convo_cli.data.dialogue import Turn
from convo_cli.data.problems import Problem
from convo_cli.data.repair.lenient_json import dump
from convo_cli.data.repair.repairs import REPAIRS
from convo_cli.data.repair.values import repair_value
from convo_cli.data.strict_json.columns import place_all

Judge: TypeAlias = Callable[[Sequence[Turn]], Problem | None]
"""Returns the problem for which a config refuses an otherwise good dialogue; None without one."""

_ALL_LABELS = ("label-row", "$")


@dataclass(frozen=True, slots=True)
class RepairedDialogue:
    """A dialogue after its repair."""

    line: bytes
    repaired: tuple[Problem, ...]
    """Problems that are gone."""
    error: Problem | None
    """An error that remains."""


class DialogueRepair:
    """Checks lines and repairs dialogues by the rules of one config."""

    def __init__(self, rules: LineRules, judge: Judge | None) -> None:
        self._rules = rules
        self._judge = judge

    def repair(
        self, own: str | None, value: Any, counts: Counter[str], first: list[Problem]
    ) -> RepairedDialogue:
        """Repair one dialogue of a line; ``own`` is its own part of the line, if it has one.

        ``counts`` are the line's problems by code, and ``first`` holds the first of each.
        """
        file, line = first[0].file, first[0].line
        strict = dump(value)
        repaired = dump(repair_value(value, self._rules.data_config))
        if own is not None and repaired == strict:
            problems = self.problems(own.encode(), file, line)
            is_good = obstacle(problems) is None and not _by_code(problems)["carriage-return"]
            repaired = own if is_good else repaired
        before = self.problems(strict.encode(), file, line)
        later = [problem for problem in before if problem.code not in counts]
        after = self.problems(repaired.encode(), file, line)
        gone = counts + _by_code(later) - _by_code(after)
        repairs = tuple(
            problem
            for problem in (*first, *later)
            if problem.code in gone and problem.code in REPAIRS
        )
        error = obstacle(after)
        return RepairedDialogue(repaired.encode(), repairs, error and replace(error, column=1))

    def problems(self, raw: bytes, file: str, line: int) -> list[Problem]:
        """Return all problems of one line alone."""
        problems: list[Problem] = []
        reading = read_line(raw, self._rules, problems.append)
        if reading is not None:
            skeleton, (turns, *_) = reading
            if skeleton.is_excluded:
                message = 'the dialogue is marked "train": false'
                problems.append(Problem("no-target", message))
            elif self._judge is not None and obstacle(problems) is None:
                refused = self._judge([turn for _, turn in turns])
                problems += [] if refused is None else [refused]
        return place_all(problems, file, line, raw)


def first_of_each(problems: list[Problem]) -> list[Problem]:
    """Return the first problem of each code; one of the whole line counts apart from its parts."""
    first: dict[tuple[str, bool], Problem] = {}
    for problem in problems:
        first.setdefault((problem.code, problem.path == "$"), problem)
    return list(first.values())


def obstacle(problems: list[Problem]) -> Problem | None:
    """Return the first problem for which a line is not written: an error, or nothing but labels."""
    obstacles = (
        problem
        for problem in problems
        if problem.severity == "error" or (problem.code, problem.path) == _ALL_LABELS
    )
    return next(obstacles, None)


def _by_code(problems: list[Problem]) -> Counter[str]:
    return Counter(problem.code for problem in problems)
