"""Tally of problems by code: the number of each, and the first few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from convo_cli.data.conversions.commands import Conversion, as_hint
from convo_cli.data.problem_kinds import KINDS, Severity
from convo_cli.data.problems import Problem
from convo_cli.errors import DataError
from convo_cli.wording import counted

MAX_PROBLEMS = 5
"""Problems listed for each code and file by default; all are counted."""


@dataclass(frozen=True, slots=True)
class ProblemGroup:
    """All problems of one code in one file: their number, and the first few."""

    code: str
    severity: Severity
    hint: str
    """The hint of the first problem; of a chat, that of the first reply."""
    count: int
    problems: tuple[Problem, ...]


class DataProblemsError(DataError):
    """Several problems of data at once; ``groups`` holds them by code."""

    def __init__(
        self, what: str, groups: Sequence[ProblemGroup], *, further_hints: Sequence[str] = ()
    ) -> None:
        lines = []
        for group in groups:
            shown = group.problems[:MAX_PROBLEMS]
            lines += [str(problem) for problem in shown]
            if more := group.count - len(shown):
                lines.append(f"{more:,} more like this")
        number = sum(group.count for group in groups)
        hints = dict.fromkeys([*(group.hint for group in groups), *further_hints])
        super().__init__(
            "\n  ".join([f"{what}: {counted(number, 'error')}", *lines]),
            hint="\n      ".join(hints),
            problems=[
                replace(problem.detail, hint=problem.hint if problem.advice else group.hint)
                for group in groups
                for problem in group.problems
            ],
        )
        self.groups = tuple(groups)


def _author(problem: Problem) -> str:
    return problem.advice.speaker if isinstance(problem.advice, Conversion) else ""


class ProblemTally:
    """A `ProblemSink` that counts all problems and lists the first few of each code."""

    def __init__(self, max_problems: int = MAX_PROBLEMS) -> None:
        self._max_problems = max_problems
        self._counts: Counter[str] = Counter()
        self._listed: dict[str, list[Problem]] = {}
        self._hints: dict[str, str] = {}
        self._first_authors: dict[str, str] = {}

    def __call__(self, problem: Problem) -> None:
        if self.is_listing(problem.code):
            self._listed.setdefault(problem.code, []).append(problem)
        self._keep_hint(problem)
        self.count(problem.code)

    def is_listing(self, code: str) -> bool:
        """Return whether the next problem of the code will be listed."""
        return len(self._listed.get(code, ())) < self._max_problems

    def count(self, code: str, number: int = 1) -> None:
        """Count problems without listing them."""
        self._counts[code] += number

    def groups(self) -> list[ProblemGroup]:
        """Return the problems of each code, in the order in which the codes first occurred."""
        return [self._group(code, count) for code, count in self._counts.items()]

    def _keep_hint(self, problem: Problem) -> None:
        """Keep the hint of the first problem, but of a chat that of the first reply.

        The hint for a message proposes its author as the assistant, and the author of the first
        messages replies to nothing.
        """
        code, author = problem.code, _author(problem)
        if code not in self._hints:
            self._first_authors[code] = author
        elif not author or self._first_authors[code] in ("", author):
            return
        else:
            self._first_authors[code] = ""
        self._hints[code] = problem.hint

    def _group(self, code: str, count: int) -> ProblemGroup:
        kind, listed = KINDS[code], tuple(self._listed.get(code, ()))
        hint = self._hints.get(code) or as_hint(kind.hint, "")
        return ProblemGroup(code, kind.severity, hint, count, listed)
