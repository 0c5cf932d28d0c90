"""The learning rate of every step, by its shape and for any length of run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.training.schedule import learning_rate_at

SCHEDULES = ["constant", "linear", "cosine"]


def rates(schedule, max_steps, warmup_steps=0, min_lr_ratio=0.1, extra=0):
    return [
        learning_rate_at(
            step, schedule=schedule, peak=2.0, max_steps=max_steps, warmup_steps=warmup_steps, min_lr_ratio=min_lr_ratio
        )
        for step in range(max_steps + extra)
    ]


def test_warm_up_climbs_in_equal_parts_and_its_last_step_has_the_peak():
    assert rates("linear", 9, warmup_steps=4)[:4] == [0.5, 1.0, 1.5, 2.0]


def test_linear_falls_in_equal_parts_to_the_floor_at_the_last_step():
    assert rates("linear", 7, warmup_steps=2, min_lr_ratio=0.0)[2:] == [2.0, 1.5, 1.0, 0.5, 0.0]


def test_cosine_is_half_way_in_the_middle_and_at_the_floor_at_the_last_step():
    middle = rates("cosine", 5)
    assert middle[0] == 2.0
    assert math.isclose(middle[2], 2.0 * 0.55)
    assert math.isclose(middle[4], 0.2)
    assert middle[0] - middle[1] < middle[1] - middle[2], "slow at first"


def test_constant_stays_at_the_peak_and_has_no_floor():
    assert rates("constant", 6, warmup_steps=2) == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_an_extended_run_goes_on_at_the_floor_and_never_rises_again(schedule):
    assert all(math.isclose(rate, 0.2) for rate in rates(schedule, 5, extra=20)[4:])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warm_up_as_long_as_the_run_ends_at_the_peak(schedule):
    assert rates(schedule, 4, warmup_steps=4) == [0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warm_up_the_first_step_has_the_peak(schedule):
    assert rates(schedule, 4)[0] == 2.0


@given(
    schedule=st.sampled_from(SCHEDULES),
    max_steps=st.integers(1, 300),
    warmup=st.integers(0, 300),
    floor=st.floats(0, 1),
)
def test_it_rises_to_the_peak_once_then_falls_and_stays_between_floor_and_peak(schedule, max_steps, warmup, floor):
    warmup = min(warmup, max_steps)
    values = rates(schedule, max_steps, warmup, floor, extra=3)
    rising, falling = values[:warmup], values[warmup:]
    assert rising == sorted(rising)
    assert all(math.isclose(rate, 2.0 * (step + 1) / warmup) for step, rate in enumerate(rising))
    assert falling == sorted(falling, reverse=True)
    assert all(2.0 * floor - 1e-12 <= rate <= 2.0 + 1e-12 for rate in falling)
