"""The learning rate of every step, by its shape and for any length of run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.config.schema import TrainingConfig
from convo_cli.training.schedule import has_user_targets, learning_rate_at

SCHEDULES = ["constant", "linear", "cosine"]


def rates(schedule, max_steps, extra=0, **training):
    config = TrainingConfig(schedule=schedule, max_steps=max_steps, learning_rate=2.0, **training)
    return [learning_rate_at(step, config, max_steps) for step in range(max_steps + extra)]


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
def test_after_its_horizon_the_rate_stays_at_the_floor(schedule):
    assert all(math.isclose(rate, 0.2) for rate in rates(schedule, 5, extra=20)[4:])
    assert rates(schedule, 25, schedule_steps=5) == rates(schedule, 5, extra=20)


def test_a_run_shorter_than_its_schedule_follows_the_beginning_of_it():
    assert rates("cosine", 3, schedule_steps=9, warmup_steps=2) == rates("cosine", 9, warmup_steps=2)[:3]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup_steps", [4, 5, 10_000])
def test_a_warm_up_as_long_as_the_run_or_longer_ends_with_it_at_the_peak(schedule, warmup_steps):
    assert rates(schedule, 4, warmup_steps=warmup_steps) == [0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warm_up_the_first_step_has_the_peak(schedule):
    assert rates(schedule, 4)[0] == 2.0


@given(
    schedule=st.sampled_from(SCHEDULES),
    max_steps=st.integers(1, 300),
    horizon=st.none() | st.integers(1, 300),
    warmup=st.integers(0, 400),
    floor=st.floats(0, 1),
)
def test_it_rises_to_the_peak_once_then_falls_and_stays_between_floor_and_peak(
    schedule, max_steps, horizon, warmup, floor
):
    values = rates(schedule, max_steps, 3, warmup_steps=warmup, schedule_steps=horizon, min_lr_ratio=floor)
    warmup = min(warmup, horizon or max_steps)
    rising, falling = values[:warmup], values[warmup:]
    assert rising == sorted(rising)
    assert all(math.isclose(rate, 2.0 * (step + 1) / warmup) for step, rate in enumerate(rising))
    assert falling == sorted(falling, reverse=True)
    assert all(2.0 * floor - 1e-12 <= rate <= 2.0 + 1e-12 for rate in falling)


@pytest.mark.parametrize(("fraction", "targets"), [(0.0, 0), (0.5, 5), (0.55, 6), (1.0, 14)])
def test_the_curriculum_counts_in_steps_of_the_schedule_and_1_is_always(fraction, targets):
    assert sum(has_user_targets(step, fraction, horizon=10) for step in range(14)) == targets
