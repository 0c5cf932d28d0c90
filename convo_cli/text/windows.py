"""Where a dialogue that is longer than the model's window is cut: between turns, and no target is lost or repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RULE = "whole-turns-half-context/1"
"""Name of the rule below, written into dialogue.json; a changed rule gets another name."""


@dataclass(frozen=True, slots=True)
class Window:
    """Turns ``first`` to ``stop`` (exclusive); those before ``fresh`` are context only."""

    first: int
    fresh: int
    stop: int


def plan_windows(turn_lengths: Sequence[int], budget: int) -> list[Window]:
    """Cover the turns with windows of at most ``budget`` tokens; each turn is fresh in exactly one of them.

    A later window takes as many fresh turns as fit into half of the budget (at least one), then as much context from
    the left as fits, by whole turns. Raises ValueError where a single turn is longer than the budget.
    """
    longest = max(turn_lengths, default=0)
    if longest > budget:
        raise ValueError(f"a turn of {longest} tokens does not fit into {budget}")
    windows: list[Window] = []
    fresh = 0
    while fresh < len(turn_lengths):
        limit = budget if fresh == 0 else max(budget // 2, turn_lengths[fresh])
        stop, used = fresh, 0
        while stop < len(turn_lengths) and used + turn_lengths[stop] <= limit:
            used += turn_lengths[stop]
            stop += 1
        first = first_that_fits(turn_lengths[:fresh], budget - used)
        windows.append(Window(first, fresh, stop))
        fresh = stop
    return windows


def first_that_fits(turn_lengths: Sequence[int], budget: int) -> int:
    """Index of the earliest turn from which all the rest fits into the budget, counted back from the end."""
    first = len(turn_lengths)
    while first > 0 and turn_lengths[first - 1] <= budget:
        first -= 1
        budget -= turn_lengths[first]
    return first
