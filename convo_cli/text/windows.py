"""Positions at which a long dialogue is cut: between turns, or within one that fits no window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RULE = "rendered-whole-turns-half-context/2"
"""Name of the rule below and in `cutting`, for dialogue.json; a changed rule gets another name."""


@dataclass(frozen=True, slots=True)
class Window:
    """Turns ``first`` to ``stop`` (exclusive); those before ``fresh`` are only context."""

    first: int
    fresh: int
    stop: int


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens ``fresh`` to ``stop`` (exclusive) of a turn, after the context from ``start`` on."""

    start: int
    fresh: int
    stop: int


def next_window(turn_lengths: Sequence[int], fresh: int, budget: int) -> Window:
    """Return the window whose first new turn is ``fresh``.

    It has at most ``budget`` tokens, unless that turn is longer. The first window of a dialogue is
    filled. A later one takes as many fresh turns as fit into half of the budget (at least one),
    then as much context from the left as fits, by whole turns.
    """
    limit = budget if fresh == 0 else budget // 2
    stop, used = fresh + 1, turn_lengths[fresh]
    while stop < len(turn_lengths) and used + turn_lengths[stop] <= limit:
        used += turn_lengths[stop]
        stop += 1
    return Window(first_that_fits(turn_lengths[:fresh], budget - used), fresh, stop)


def first_that_fits(turn_lengths: Sequence[int], budget: int) -> int:
    """Return the earliest turn from which all turns up to the end fit into the budget."""
    first = len(turn_lengths)
    while first > 0 and turn_lengths[first - 1] <= budget:
        first -= 1
        budget -= turn_lengths[first]
    return first


def cut_turn(begin: int, end: int, budget: int, context: int) -> list[Part]:
    """Cover tokens ``begin`` to ``end`` with parts of at most ``budget`` tokens, each fresh once.

    Each part repeats up to ``context`` tokens before its first fresh one; a turn that fits together
    with at least one such token is one part with as many as fit. The budget must be larger than the
    context.
    """
    if end - begin < budget and begin > 0:
        return [Part(max(0, end - budget), begin, end)]
    parts, fresh = list[Part](), begin
    while fresh < end:
        start = max(0, fresh - context)
        parts.append(Part(start, fresh, min(end, start + budget)))
        fresh = parts[-1].stop
    return parts
