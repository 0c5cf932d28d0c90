"""Charts: ticks inside the range, extremes in the paths, labels that do not overlap."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.report.drawing.charts import HEIGHT, UNIT, Line, line_chart, nice_ticks

VALUES = st.floats(-1e300, 1e300, allow_nan=False, allow_subnormal=False)
CURVES = st.lists(VALUES, min_size=1, max_size=300).map(
    lambda values: [(float(index + 1), value) for index, value in enumerate(values)]
)


def places(path: str) -> list[tuple[int, int]]:
    """The points of a path of one move and relative lines."""
    numbers = [int(text) for text in re.findall(r"-?\d+", path)]
    points = [(numbers[0], numbers[1])]
    for dx, dy in zip(numbers[2::2], numbers[3::2], strict=True):
        points.append((points[-1][0] + dx, points[-1][1] + dy))
    return points


@given(CURVES, st.booleans())
def test_any_curve_fills_the_plot_and_stays_inside_it(curve, from_zero):
    chart = line_chart("a", "Loss", [Line("loss", curve, "train")], from_zero=from_zero)
    for path in chart.paths:
        if path.style == "train":
            heights = [y for _, y in places(path.d)]
            assert 0 <= min(heights) <= max(heights) <= UNIT
            if not from_zero and len(set(heights)) > 1:
                assert (min(heights), max(heights)) == (0, UNIT)
    assert all(0 <= y <= HEIGHT for y, _ in chart.y_ticks)
    assert all(0 <= x <= 100 for x, _, _ in chart.x_ticks)


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12), st.integers(2, 6))
def test_ticks_are_in_the_range_and_ascend(low, width, count):
    ticks = nice_ticks(low, low + width, count)
    assert len(ticks) <= 3 * count + 1
    assert all(a < b for a, b in pairwise(ticks))


@given(st.lists(VALUES, min_size=1, max_size=7))
def test_labels_keep_apart(values):
    lines = [Line(f"line {value}", [(1.0, value)], "m0") for value in values]
    chart = line_chart("a", "Loss", lines)
    assert all(b.y - a.y >= 25 for a, b in pairwise(chart.labels))


def test_a_spike_of_one_step_is_drawn():
    curve = [(float(step), 1.0 + step / 1e5) for step in range(1, 10_001)]
    curve[7_654] = (7_655.0, 9.0)
    chart = line_chart("a", "Norm", [Line("norm", curve, "train")])
    spike = min(places(chart.paths[0].d), key=lambda place: place[1])
    assert spike == (round(UNIT * 0.7655), 0)
    assert len(chart.paths[0].d) < 8_000
    assert "highest 9.000 at 7,655" in chart.description


def test_values_over_orders_of_magnitude_have_a_logarithmic_scale():
    curve = [(1.0, 1000.0), (2.0, 1.0), (3.0, 0.1)]
    chart = line_chart("a", "Norm", [Line("norm", curve, "train")])
    assert chart.title == "Norm (logarithmic scale)"
    assert [text for _, text in chart.y_ticks] == ["0.1", "1", "10", "100", "1k"]
    plain = line_chart("a", "Norm", [Line("norm", curve, "train")], from_zero=True)
    assert plain.title == "Norm"


def test_nothing_to_draw_is_no_chart():
    assert line_chart("a", "Loss", [Line("loss", [], "train")]) is None


def test_a_single_point_is_a_dot_and_intervals_are_bars():
    line = Line("model", [(4.0, 2.0)], "valid", has_dots=True, whiskers=[(4.0, 1.0, 3.0)])
    chart = line_chart("a", "bleu-4", [line])
    assert [path.style for path in chart.paths] == ["valid dot", "valid whisker"]
    assert chart.paths[1].d == f"M{UNIT} {UNIT}V0"


@pytest.mark.parametrize("unit", ["tokens"])
def test_tokens_stand_below_the_steps(unit):
    curve = [(float(step), 1.0 / step) for step in range(1, 101)]
    tokens = [(float(step), 600.0 * step) for step in range(1, 101)]
    chart = line_chart("a", "Loss", [Line("loss", curve, "train")], second=(unit, tokens))
    assert [(text, below) for _, text, below in chart.x_ticks] == [
        ("0", ""), ("50", "30k"), ("100", "60k"),
    ]  # fmt: skip
