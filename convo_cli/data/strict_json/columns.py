"""Columns of the values in a line, given their paths, and the places of problems."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from convo_cli.data.problems import Problem
from convo_cli.data.strict_json.faults import Scanner


def locate(raw: bytes, paths: Iterable[str]) -> dict[str, int]:
    """Return the column at which the value of each path begins, in one scan.

    ``raw`` is a line that `decode` accepted. A path that does not exist has column 1.
    """
    columns = dict.fromkeys(paths, 1)
    if columns:
        scanner = Scanner(raw, lambda problem: None, wanted=set(columns))
        scanner.scan()
        columns |= scanner.columns
    return columns


def place(problem: Problem, file: str, line: int, raw: bytes) -> Problem:
    """Return the problem with its file and line, and its column if only the path was known."""
    return place_all([problem], file, line, raw)[0]


def place_all(problems: Sequence[Problem], file: str, line: int, raw: bytes) -> list[Problem]:
    """Return all problems of a line with their places, in one scan."""
    columns = locate(raw, (problem.path for problem in problems if not problem.column))
    return [
        replace(each, column=each.column or columns[each.path], line=line, file=file)
        for each in problems
    ]
