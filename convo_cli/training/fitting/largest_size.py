"""Choice of the largest micro-batch size that fits, from a few small measurements.

Memory grows with the tokens of a pass, so small passes predict that of larger ones. Only a size
that is predicted to fit is tried: a pass that is far too large can bring a machine without a limit
to a standstill before it fails, and a process that ran out of memory once has less left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

_SMALL = 256
"""Tokens of the first measured pass: with fewer, constant parts would hide what a token needs."""


@dataclass(frozen=True, slots=True)
class Size:
    """A micro-batch size to choose from."""

    size: int
    num_slots: int
    """Tokens of its worst pass, with padding."""
    is_quick: bool
    """Whether its worst pass takes only seconds."""
    is_halved: bool = False
    """Whether the examples of the pass are cut to half of their tokens."""

    def halved(self) -> Size:
        """Return the size with half of the tokens."""
        return replace(self, num_slots=self.num_slots // 2, is_halved=True)


@dataclass(frozen=True, slots=True)
class Fit:
    """The chosen size, and the memory that it and the next larger one need for a pass."""

    size: int
    needed: int | None
    """None if its pass ran out of memory, or was not measured because a larger one fits."""
    larger: int | None = None
    """Bytes that the next larger size needs; None if there is none, or its pass did not fit."""


class Measurements:
    """Bytes of the worst pass of each size: measured, or predicted from what was measured.

    ``measure`` returns the bytes of a size's pass, or None if it ran out of memory.
    """

    def __init__(self, measure: Callable[[Size], int | None]) -> None:
        self._measure = measure
        self._known: dict[int, int | None] = {}
        """Bytes by tokens."""

    def measure(self, size: Size) -> int | None:
        """Return the measured bytes; None if the pass ran out of memory."""
        if size.num_slots not in self._known:
            self._known[size.num_slots] = self._measure(size)
        return self._known[size.num_slots]

    def predict(self, size: Size) -> int | None:
        """Return the bytes, measured or on the line through the two largest measured passes."""
        if size.num_slots in self._known:
            return self._known[size.num_slots]
        points = sorted((slots, used) for slots, used in self._known.items() if used is not None)
        if not points:
            return None
        slots, used = points[-1]
        slope = used / slots  # too much rather than too little
        if len(points) > 1:
            slope = max(0.0, (used - points[-2][1]) / (slots - points[-2][0]))
        return used + int(slope * max(0, size.num_slots - slots))


def largest_that_fits(
    sizes: Sequence[Size],
    known: Measurements,
    fits: Callable[[int], bool],
    may_be_tried: Callable[[int], bool],
) -> Fit:
    """Return the largest of ``sizes``, which descend to 1, whose worst pass fits.

    ``fits`` says whether there is room for a pass of so many bytes, and ``may_be_tried`` whether
    there is enough to try a pass that is predicted to need so many. The smallest size is returned
    even if it does not fit.
    """
    small = max((index for index, size in enumerate(sizes) if size.num_slots >= _SMALL), default=0)
    index = small
    while not _is_good(known.measure(sizes[index]), fits) and index < len(sizes) - 1:
        index += 1
    if index == small and _is_good(known.predict(sizes[index]), fits):
        index = _climb(sizes, index, known, fits, may_be_tried)
    needed = known.predict(sizes[index])
    larger = known.predict(sizes[index - 1]) if index else None
    return Fit(sizes[index].size, needed, larger)


def _climb(
    sizes: Sequence[Size],
    index: int,
    known: Measurements,
    fits: Callable[[int], bool],
    may_be_tried: Callable[[int], bool],
) -> int:
    """Return the place of the largest size that fits, given that of a measured one that does.

    Each size that is measured is at most four times the one before, and corrects the prediction.
    """
    if index and not _is_good(known.predict(sizes[index - 1]), fits):
        known.measure(sizes[index].halved())  # perhaps most of the memory is constant
    first = 0
    while True:
        fitting = [
            place for place in range(first, index) if _is_good(known.predict(sizes[place]), fits)
        ]
        if not fitting:
            return index
        nearer = [
            place
            for place in range(max(fitting[0], index - 2), index)
            if sizes[place].is_quick and _is_good(known.predict(sizes[place]), may_be_tried)
        ]
        if not nearer:
            return fitting[0]
        if _is_good(known.measure(sizes[nearer[0]]), fits):
            index = nearer[0]
        else:
            first = nearer[0] + 1


def _is_good(used: int | None, fits: Callable[[int], bool]) -> bool:
    return used is not None and fits(used)
