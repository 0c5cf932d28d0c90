"""Problems of data: what is wrong and where, and the sinks that receive problems.

A `ProblemSink` decides what a problem means: `refuse`, the sink of training, raises at the first
error, and `problem_tally.ProblemTally`, the sink of validation, counts them all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convo_cli.data.conversions.commands import Conversion, as_hint
from convo_cli.data.problem_kinds import KINDS, Severity
from convo_cli.errors import DataError, ProblemDetail, typeable
from convo_cli.wording import on_one_line, quoted

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem at one place. Line and column (in characters) count from 1; 0 if unknown."""

    code: str
    message: str
    path: str = "$"
    column: int = 0
    line: int = 0
    file: str = ""
    advice: str | Conversion = ""
    """A hint for this problem alone, instead of the one of its kind."""

    @property
    def severity(self) -> Severity:
        return KINDS[self.code].severity

    @property
    def hint(self) -> str:
        return as_hint(self.advice or KINDS[self.code].hint, self.file)

    @property
    def detail(self) -> ProblemDetail:
        """Return the problem as `--json` lists it."""
        file = self.file or None
        return ProblemDetail(self.message, file, self.line, self.column, self.path, self.hint)

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.file else f"line {self.line}"
        return on_one_line(f"{where} {self.path} {self.message}")


@dataclass(frozen=True, slots=True)
class LongTurn(Problem):
    """A turn that fits no window unless dialogue.max_length is at least ``needed``."""

    needed: int = 0


ProblemSink = Callable[[Problem], None]


class ProblemError(DataError):
    """The first problem of a reader that cannot continue without the line."""

    def __init__(self, problem: Problem, *, further_hints: Sequence[str] = ()) -> None:
        hint = "\n      ".join((problem.hint, *further_hints))
        if problem.file:
            hint += f"\n      see every problem: convo validate-data {typeable(problem.file)}"
        super().__init__(str(problem), hint=hint, problems=[problem.detail])
        self.problem = problem


def refuse(problem: Problem) -> None:
    """Raise at an error and ignore a warning: the sink of training."""
    if problem.severity == "error":
        raise ProblemError(problem)


def at_line(problem: Problem, file: str, line: int) -> Problem:
    """Return a problem of a whole line with its place."""
    return replace(problem, column=1, line=line, file=file)


def no_target(train_on: str, *, calls_only: bool = False) -> Problem:
    """Return the problem of a dialogue without a target.

    ``calls_only`` is true if the assistant only calls tools.
    """
    message = f"the dialogue has no turn to train on (train_on: {train_on})"
    if calls_only:
        message += "; the assistant only makes tool calls, which are context"
    return Problem("no-target", message)


def kind_of(value: Any) -> str:
    """Describe the type of a JSON value in words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        is_parts = value and all(isinstance(item, dict) for item in value)
        return "a list of objects" if is_parts else "a list"
    if isinstance(value, (str, dict)):
        return "a string" if isinstance(value, str) else "an object"
    return "a number"


def member(path: str, key: str) -> str:
    """Return the path of ``key`` inside the object at ``path``."""
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{quoted(key)}]"
