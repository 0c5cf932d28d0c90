"""Repairable problems with the action for each, and the report of a repair."""

from __future__ import annotations

from dataclasses import dataclass

from convo_cli.data.problems import Problem

REPAIRS = {
    "pretty-printed-json": "each value written on its own line",
    "array-of-dialogues": "each dialogue written on its own line",
    "extra-data": "each value written on its own line",
    "blank-line": "removed",
    "stray-bom": "removed",
    "not-utf8": "read as Windows-1252",
    "invalid-json": "trailing comma removed, or read as Python syntax",
    "not-a-number": "replaced by null",
    "number-too-large": "replaced by a string",
    "duplicate-key": "one of two equal keys removed",
    "lone-surrogate": "removed",
    "nul-character": "removed",
    "control-character": "removed, or replaced by a newline",
    "carriage-return": "replaced by a newline",
    "empty-utterance": "turn removed",
    "train-value": "replaced by true or false",
    "references": "empty and repeated ones removed",
    "train-key": "misspelt key renamed",
    "unknown-shape": "misspelt key renamed",
    "missing-key": "misspelt key renamed",
    "misspelt-key": "renamed",
    "zero-width": "removed",
    "bidi-override": "removed",
    "stray-control": "removed, or replaced by the intended character",
    "html-entity": "decoded",
    "mojibake": "decoded with the right encoding",
}
"""The action for each kind of problem.

A line with any other error, or with nothing but labels, is left out. Other warnings change nothing.
"""


@dataclass(frozen=True, slots=True)
class RepairGroup:
    """All lines that were repaired or left out for one code: their number, and the first few."""

    code: str
    what: str
    """The action; for lines left out, the hint."""
    count: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class RepairReport:
    """Counts of lines that are not blank.

    One line can need several repairs, and can become several lines.
    """

    num_lines: int
    num_unchanged: int
    """Lines written byte for byte."""
    num_repaired: int
    num_left_out: int
    """Lines that lost at least one dialogue; files that are not JSON Lines are not counted."""
    num_written: int
    repaired: tuple[RepairGroup, ...]
    left_out: tuple[RepairGroup, ...]
