"""Check and repair of one dialogue: the new line, the repaired problems, and the remaining
error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import msgspec

from convo_cli.config.schema import DataConfig, TrainOn
from convo_cli.data.checks.suspicions import suspect_turns
from convo_cli.data.dialogue import Turn, has_target, is_excluded
from convo_cli.data.problems import Problem, no_target, quoted
from convo_cli.data.repair.lenient_json import dump
from convo_cli.data.repair.repairs import REPAIRS
from convo_cli.data.repair.values import repair_value
from convo_cli.data.shapes.known_keys import misspelt
from convo_cli.data.shapes.turns import read_value
from convo_cli.data.strict_json.decoder import decode
from convo_cli.data.strict_json.faults import place_all

Judge: TypeAlias = Callable[[Sequence[Turn]], Problem | None]
"""Returns the reason why a config refuses an otherwise good dialogue; None if it accepts it."""

_ALL_LABELS = ("label-row", "$")


@dataclass(frozen=True, slots=True)
class RepairedDialogue:
    """A dialogue after its repair; ``repaired`` are the problems that are gone, ``error`` is one
    that remains.
    """

    line: bytes
    repaired: tuple[Problem, ...]
    error: Problem | None


class DialogueRepair:
    """Checks lines and repairs dialogues by the rules of one config."""

    def __init__(self, data_config: DataConfig, train_on: TrainOn, judge: Judge | None) -> None:
        self._data_config = data_config
        self._train_on = train_on
        self._judge = judge

    def repair(
        self, own: str | None, value: Any, counts: Counter[str], first: list[Problem]
    ) -> RepairedDialogue:
        """Repair one dialogue of a line; ``own`` is its own part of the line, if it has one.

        ``counts`` are the line's problems by code, and ``first`` holds the first of each.
        """
        file, line = first[0].file, first[0].line
        strict, repaired = dump(value), dump(repair_value(value, self._data_config))
        if (
            own is not None
            and repaired == strict
            and obstacle(self.problems(own.encode(), file, line)) is None
        ):
            repaired = own
        later = [
            problem
            for problem in self.problems(strict.encode(), file, line)
            if problem.code not in counts
        ]
        after = self.problems(repaired.encode(), file, line)
        error = obstacle(after)
        gone = (
            counts
            + Counter(problem.code for problem in later)
            - Counter(problem.code for problem in after)
        )
        repairs = tuple(
            problem
            for problem in (*first, *later)
            if problem.code in gone and problem.code in REPAIRS
        )
        return RepairedDialogue(repaired.encode(), repairs, error and replace(error, column=1))

    def problems(self, raw: bytes, file: str, line: int) -> list[Problem]:
        """Return all problems of one line alone."""
        problems: list[Problem] = []
        value = decode(raw, problems.append)
        reading = (
            None
            if value is msgspec.UNSET
            else read_value(value, self._data_config, problems.append)
        )
        if reading is not None:
            problems += (
                Problem("misspelt-key", quoted(key), path)
                for path, key, _ in reading.unread
                if misspelt(key)
            )
            turns = [turn for _, turn in reading.turns]
            if is_excluded(turns):
                problems.append(
                    Problem("no-target", 'the data says "train": false for the whole dialogue')
                )
            elif not has_target(turns, self._train_on):
                problems.append(no_target(self._train_on))
            if self._judge is not None and obstacle(problems) is None:
                refused = self._judge(turns)
                problems += [] if refused is None else [refused]
            problems += suspect_turns(reading.turns)
        return place_all(problems, file, line, raw)


def first_of_each(problems: list[Problem]) -> list[Problem]:
    """Return the first problem of each code, in order; one of the whole line counts apart from
    those of its parts.
    """
    first: dict[tuple[str, bool], Problem] = {}
    for problem in problems:
        first.setdefault((problem.code, problem.path == "$"), problem)
    return list(first.values())


def obstacle(problems: list[Problem]) -> Problem | None:
    """Return the first problem that keeps the line from being written: an error, or a line of
    labels alone.
    """
    return next(
        (
            each
            for each in problems
            if each.severity == "error" or (each.code, each.path) == _ALL_LABELS
        ),
        None,
    )
