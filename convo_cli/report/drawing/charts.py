"""Line charts as shapes for the SVG template: paths, ticks, and labels at the ends of lines.

The plot is a square of 1000 by 1000 units that the page stretches to any width, while text and line
widths keep their size. So one drawing suits a phone and a wide screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from convo_cli.report.shown import number, short_number
from convo_cli.report.thinning import Points, thinned

UNIT = 1000
HEIGHT = 190
"""Height of the plot in pixels."""
PLOT_WIDTH = 76
"""Width of the plot in percent of the picture; the labels of the lines take the rest."""
_MAX_DOTS = 60
_LABEL_HEIGHT = 15
"""Height in pixels of one line of a label."""
_SHORT = 3
_LOG_RATIO = 100


@dataclass(frozen=True, slots=True)
class Line:
    """One curve; ``style`` is a class of the page's style sheet."""

    label: str
    """Text at the end of the line; empty for a line that another line's label explains."""
    points: Points
    style: str
    has_dots: bool = False
    whiskers: Sequence[tuple[float, float, float]] = ()
    """(x, low, high) of intervals."""


@dataclass(frozen=True, slots=True)
class Path:
    """A shape in units of the plot."""

    style: str
    d: str


@dataclass(frozen=True, slots=True)
class EndLabel:
    """Name and last value of a line at height ``y`` in pixels."""

    style: str
    y: int
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart for the template."""

    key: str
    """An id, unique on the page."""
    title: str
    description: str
    paths: Sequence[Path]
    y_ticks: Sequence[tuple[int, str]]
    """Distance from the top in pixels, and the text."""
    x_ticks: Sequence[tuple[float, str, str]]
    """Percent of the picture's width, the text, and a second text below it."""
    labels: Sequence[EndLabel] = field(default_factory=tuple)
    x_name: str = "step"
    second_name: str = ""

    @property
    def is_stacked(self) -> bool:
        """Return whether the value of a label is below its name."""
        return any(len(label.name) > _SHORT for label in self.labels)


def line_chart(
    key: str,
    title: str,
    lines: Sequence[Line],
    *,
    x_name: str = "step",
    second: tuple[str, Points] | None = None,
    from_zero: bool = False,
    columns: int = 240,
) -> Chart | None:
    """Return a chart of the lines that have points; None if none has.

    ``second`` is the name of another measure of x and its values by x. Values over more than two
    orders of magnitude get a logarithmic scale, unless they are drawn ``from_zero``. ``columns``
    bounds the points of a line (`convo_cli.report.thinning`).
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    values = [y for line in lines for _, y in line.points]
    values += [bound for line in lines for _, *bounds in line.whiskers for bound in bounds]
    low, high = min(values), max(values)
    is_log = low > 0 and high / low > _LOG_RATIO and not from_zero
    scale = _Scale(min(0.0, low) if from_zero else low, high, is_log=is_log)
    end = max(line.points[-1][0] for line in lines) or 1.0
    paths = [path for line in lines for path in _paths(line, end, scale, columns)]
    described = "; ".join(_described(line, x_name) for line in lines if line.label)
    return Chart(
        key=key,
        title=title + (" (logarithmic scale)" if is_log else ""),
        description=described,
        paths=paths,
        y_ticks=[(_pixels(scale.unit(tick)), short_number(tick)) for tick in scale.ticks()],
        x_ticks=_x_ticks(end, second),
        labels=_labels(lines, scale),
        x_name=x_name,
        second_name=second[0] if second else "",
    )


class _Scale:
    """Heights of values: 0 at the top, UNIT at the bottom."""

    def __init__(self, low: float, high: float, *, is_log: bool) -> None:
        self._is_log = is_log
        self._low, self._high = (math.log10(low), math.log10(high)) if is_log else (low, high)
        if self._high - self._low < 1e-9 * max(1e-300, abs(self._high)):
            margin = abs(self._high) * 0.1 or 1.0
            self._low, self._high = self._low - margin, self._high + margin

    def unit(self, value: float) -> int:
        value = math.log10(max(value, 1e-300)) if self._is_log else value
        return round(UNIT * (self._high - value) / (self._high - self._low))

    def ticks(self) -> list[float]:
        if self._is_log:
            whole = range(math.ceil(self._low), math.floor(self._high) + 1)
            stride = max(1, len(whole) // 4)
            return [10.0**exponent for exponent in whole[::stride]]
        return nice_ticks(self._low, self._high, 4)


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round numbers from low to high: multiples of 1, 2 or 5."""
    raw = (high - low) / count
    if not raw > 0 or not math.isfinite(raw):
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    ticks = [step * index for index in range(first, first + 3 * count + 1)]
    return list(dict.fromkeys(tick for tick in ticks if tick <= high + 1e-9 * step))


def _x_ticks(end: float, second: tuple[str, Points] | None) -> list[tuple[float, str, str]]:
    ticks = [tick for tick in nice_ticks(0, end, 4) if tick <= end]
    return [
        (
            round(PLOT_WIDTH * tick / end, 2),
            short_number(tick),
            short_number(_value_at(second[1], tick)) if second and tick else "",
        )
        for tick in ticks
    ]


def _value_at(points: Points, x: float) -> float:
    return next((y for at, y in points if at >= x), points[-1][1] if points else 0.0)


def _paths(line: Line, end: float, scale: _Scale, columns: int) -> list[Path]:
    places = [(round(UNIT * x / end), scale.unit(y)) for x, y in thinned(line.points, columns)]
    paths = []
    if len(places) > 1:
        moves = [(x - a, y - b) for (a, b), (x, y) in pairwise(places)]
        course = "".join(f"{x} {y} " if y >= 0 else f"{x}{y} " for x, y in moves).strip()
        paths.append(Path(line.style, f"M{places[0][0]} {places[0][1]}l{course}"))
    if line.has_dots or len(places) == 1:
        dots = places if len(places) <= _MAX_DOTS else [places[0], places[-1]]
        paths.append(Path(f"{line.style} dot", "".join(f"M{x} {y}h0" for x, y in dots)))
    if line.whiskers and len(line.whiskers) <= _MAX_DOTS:
        bars = [
            f"M{round(UNIT * x / end)} {scale.unit(low)}V{scale.unit(high)}"
            for x, low, high in line.whiskers
        ]
        paths.append(Path(f"{line.style} whisker", "".join(bars)))
    return paths


def _labels(lines: Sequence[Line], scale: _Scale) -> list[EndLabel]:
    """Return the labels from top to bottom, moved apart where they would overlap."""
    labels = [
        EndLabel(
            line.style, _pixels(scale.unit(line.points[-1][1])), line.label,
            number(line.points[-1][1], 3),
        )
        for line in lines
        if line.label
    ]  # fmt: skip
    labels.sort(key=lambda label: label.y)
    is_stacked = any(len(line.label) > _SHORT for line in lines)
    height = 2 * _LABEL_HEIGHT - 3 if is_stacked else _LABEL_HEIGHT
    heights: list[int] = []
    for label in labels:
        heights.append(max(label.y, heights[-1] + height if heights else 0))
    lowest = HEIGHT - (height - 8 if is_stacked else 4)  # the names of the axes are below
    for index in range(len(heights) - 1, -1, -1):
        heights[index] = min(heights[index], lowest)
        lowest = heights[index] - height
    return [replace(label, y=y) for label, y in zip(labels, heights, strict=True)]


def _pixels(unit: int) -> int:
    return round(HEIGHT * unit / UNIT)


def _described(line: Line, x_name: str) -> str:
    """Return a curve in words: first, lowest, highest and last value."""
    points = line.points
    if len(points) == 1:
        return f"{line.label}: {number(points[0][1])} at {x_name} {points[0][0]:,.0f}"
    (low_at, low), (high_at, high) = min(points, key=_y), max(points, key=_y)
    return (
        f"{line.label}: from {number(points[0][1])} at {x_name} {points[0][0]:,.0f} to "
        f"{number(points[-1][1])} at {x_name} {points[-1][0]:,.0f}, lowest {number(low)} at "
        f"{low_at:,.0f}, highest {number(high)} at {high_at:,.0f}"
    )


def _y(point: tuple[float, float]) -> float:
    return point[1]
