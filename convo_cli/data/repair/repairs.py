"""Repairable problems, the action for each, and the report of a repair."""

from __future__ import annotations

from dataclasses import dataclass

from convo_cli.data.problems import Problem

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
"""The action for each kind of problem. A line with another error, or a line of labels alone, is
left out; lines with other warnings stay as they are."""


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
    """Counts of lines that are not blank. A line can be repaired in several ways, and can become
    several lines.
    """

    num_lines: int
    num_unchanged: int
    """Lines written byte for byte."""
    num_repaired: int
    num_left_out: int
    """Lines from which at least one dialogue was left out; files that are not JSON Lines are not
    counted.
    """
    num_written: int
    repaired: tuple[RepairGroup, ...]
    left_out: tuple[RepairGroup, ...]
