"""Tally of problems by code: the number of each, and the first few."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from convo_cli.data.problem_kinds import KINDS, Severity
from convo_cli.data.problems import Problem

MAX_PROBLEMS = 5
"""Problems listed for each code and file by default; all are counted."""


@dataclass(frozen=True, slots=True)
class ProblemGroup:
    """All problems of one code in one file: their number, and the first few."""

    code: str
    severity: Severity
    hint: str
    count: int
    problems: tuple[Problem, ...]


class ProblemTally:
    """A `ProblemSink` that counts all problems and lists the first few of each code."""

    def __init__(self, max_problems: int = MAX_PROBLEMS) -> None:
        self._max_problems = max_problems
        self._counts: Counter[str] = Counter()
        self._listed: dict[str, list[Problem]] = {}

    def __call__(self, problem: Problem) -> None:
        if self.is_listing(problem.code):
            self._listed.setdefault(problem.code, []).append(problem)
        self.count(problem.code)

    def is_listing(self, code: str) -> bool:
        """Return whether the next problem of the code will be listed."""
        return len(self._listed.get(code, ())) < self._max_problems

    def count(self, code: str, number: int = 1) -> None:
        """Count problems without listing them."""
        self._counts[code] += number

    def groups(self) -> list[ProblemGroup]:
        """Return the problems of each code, in the order in which the codes first occurred."""
        return [
            ProblemGroup(code, *KINDS[code], count, tuple(self._listed.get(code, ())))
            for code, count in self._counts.items()
        ]
