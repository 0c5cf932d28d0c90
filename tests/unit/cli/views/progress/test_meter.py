"""Speed, time left and the course of the loss."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.cli.views.progress.meter import Meter, sparkline
from tests.run_events import FakeClock, step


def test_the_time_left_counts_pauses_but_not_the_slow_first_step() -> None:
    clock = FakeClock()
    meter = Meter(clock)
    clock.now += 60
    meter.add(step(1, seconds=60))
    assert meter.seconds_left() == 299 * 60
    for number in range(2, 12):
        clock.now += 1 if number != 5 else 11
        meter.add(step(number, seconds=1))
    assert meter.seconds_left() == pytest.approx(289 * 2)
    assert meter.elapsed() == 80


def test_smoothing_begins_with_the_first_loss_and_follows_the_last_ones() -> None:
    meter = Meter(FakeClock())
    meter.add(step(1, loss=10))
    assert meter.loss == 10
    for number in range(2, 200):
        meter.add(step(number, loss=2))
    assert meter.loss == pytest.approx(2, abs=1e-6)


def test_a_step_that_took_no_time_has_no_speed() -> None:
    meter = Meter(FakeClock())
    meter.add(step(1, seconds=0))
    assert meter.tokens_per_second == 0


def test_the_course_of_the_loss_stays_small_and_spans_the_run() -> None:
    meter = Meter(FakeClock())
    for number in range(1, 10_001):
        meter.add(step(number, loss=10_000 - number))
    gaps = {
        round(before - after)
        for before, after in zip(meter.losses[20:], meter.losses[21:], strict=False)
    }
    assert 200 < len(meter.losses) <= 480
    assert meter.losses[0] > 9_900
    assert meter.losses[-1] < 100
    assert len(gaps) == 1, "evenly spread"


def test_a_sparkline_rises_with_its_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([7, 7, 0, 0], 2) == "█▁"
    assert sparkline([3, 3, 3], 8) == "▁▁▁"


@given(values=st.lists(st.floats(width=32), max_size=200), width=st.integers(-3, 60))
def test_a_sparkline_of_any_numbers_fits_its_width(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    num_finite = sum(value - value == 0 for value in values)
    assert len(line) == min(max(0, width), num_finite)
    assert set(line) <= set("▁▂▃▄▅▆▇█")
