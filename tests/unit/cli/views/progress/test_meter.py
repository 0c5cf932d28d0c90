"""The meter: speed, time left, best scores and the loss curve."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.cli.views.progress.meter import Meter, sparkline
from convo_cli.events import BestScore
from tests.run_events import STARTED, FakeClock, evaluation, step


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


@pytest.mark.parametrize(
    ("every", "evaluated", "left"),
    [(100, 100, 2), (100, 0, 3), (43.5, 87, 5), (1000, -1, 1), (None, -1, 0), (120, 120, 2)],
)
def test_the_evaluations_left_are_those_of_the_schedule_and_the_last_step(
    every: float | None, evaluated: int, left: int
) -> None:
    meter = Meter(FakeClock())
    meter.start(replace(STARTED, steps_per_evaluation=every))
    meter.add(step(max(evaluated, 1)))
    if evaluated > 0:
        meter.add_evaluation(evaluation(evaluated))
    assert meter.num_evaluations_left == left


def test_no_evaluation_is_left_after_the_last_step() -> None:
    meter = Meter(FakeClock())
    meter.start(replace(STARTED, steps_per_evaluation=100))
    meter.add(step(300))
    assert meter.num_evaluations_left == 1
    meter.add_evaluation(evaluation(300))
    assert meter.num_evaluations_left == 0
    assert meter.seconds_left() == 0


def test_the_time_left_runs_down_between_two_events() -> None:
    clock = FakeClock()
    meter = Meter(clock)
    for number in (298, 299):
        clock.now += 25
        meter.add(step(number, seconds=25))
    clock.now += 10
    assert meter.seconds_left() == 15
    clock.now += 100
    assert meter.seconds_left() == 0


def test_the_best_scores_are_those_of_the_evaluations_that_say_so() -> None:
    meter = Meter(FakeClock())
    meter.start(replace(STARTED, metric="bleu-2"))
    for number, best in enumerate([("loss", "metric"), ("metric",), ()], 1):
        meter.add_evaluation(replace(evaluation(number), loss=float(number), best=best))
    assert meter.best == (BestScore("loss", 1.0, 1), BestScore("bleu-2", 4.125, 2))


def test_smoothing_begins_with_the_first_loss_and_follows_the_last_ones() -> None:
    meter = Meter(FakeClock())
    meter.add(step(1, loss=10))
    assert meter.loss == 10
    for number in range(2, 200):
        meter.add(step(number, loss=2))
    assert meter.loss == pytest.approx(2, abs=1e-6)


def test_a_step_of_no_time_has_no_speed() -> None:
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
