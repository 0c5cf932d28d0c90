"""Problems that can be repaired, what is done about each, and the report of a repair."""

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
"""What is done about each kind of problem. Where another is an error, or nothing but labels, the
line is left out; any other warning stays with its line."""


@dataclass(frozen=True, slots=True)
class RepairGroup:
    """All lines that were repaired, or left out, for one code: how many, and the first of them."""

    code: str
    what: str
    """What was done; for lines left out, the hint."""
    count: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class RepairReport:
    """Lines are those that are not blank. A line can be repaired in several ways, and become several lines."""

    num_lines: int
    num_unchanged: int
    """Lines written byte for byte."""
    num_repaired: int
    num_left_out: int
    """Lines from which at least one dialogue was left out; whole files that are no JSON Lines are not counted."""
    num_written: int
    repaired: tuple[RepairGroup, ...]
    left_out: tuple[RepairGroup, ...]
