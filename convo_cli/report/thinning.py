"""Thinning of curves to a few points for each column of a picture, with every extreme kept."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

Points = list[tuple[float, float]]


def thinned(points: Sequence[tuple[float, float]], columns: int) -> Points:
    """Return the first, lowest, highest and last point of each column, in order of x.

    ``points`` ascend by x. At most 4 points of a column are kept; a short curve keeps all points.
    """
    if len(points) <= 2 * columns:
        return list(points)
    left, width = points[0][0], points[-1][0] - points[0][0] or 1.0

    def column(point: tuple[float, float]) -> int:
        return min(columns - 1, int((point[0] - left) / width * columns))

    kept: Points = []
    for _, group in groupby(points, key=column):
        inside = list(group)
        low = min(range(len(inside)), key=lambda index: inside[index][1])
        high = max(range(len(inside)), key=lambda index: inside[index][1])
        kept += [inside[index] for index in sorted({0, low, high, len(inside) - 1})]
    return kept


def spread(items: Sequence[int], count: int, always: Sequence[int] = ()) -> list[int]:
    """Return at most ``count`` of the ascending items: first, last, those of ``always``, others.

    The others are evenly spaced. ``always`` yields to ``count``.
    """
    if len(items) <= count:
        return list(items)
    places = {item: index for index, item in enumerate(items)}
    chosen = {0, len(items) - 1}
    for place in [places[one] for one in always if one in places] + [
        round(index * (len(items) - 1) / count) for index in range(1, count)
    ]:
        if len(chosen) < count:
            chosen.add(place)
    return [items[index] for index in sorted(chosen)]
