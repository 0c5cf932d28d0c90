"""The window plan against brute force: nothing cut, nothing twice, nothing lost, as much context as fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.text.windows import first_that_fits, plan_windows

LENGTHS = st.lists(st.integers(1, 20), max_size=25)


@given(lengths=LENGTHS, budget=st.integers(20, 60))
def test_every_turn_is_fresh_in_exactly_one_window_and_no_window_is_too_long(lengths, budget):
    windows = plan_windows(lengths, budget)
    fresh = [turn for window in windows for turn in range(window.fresh, window.stop)]
    assert fresh == list(range(len(lengths)))
    assert all(sum(lengths[window.first : window.stop]) <= budget for window in windows)
    assert all(window.fresh < window.stop for window in windows)


@given(lengths=LENGTHS, budget=st.integers(20, 60))
def test_context_is_every_whole_turn_that_still_fits(lengths, budget):
    for window in plan_windows(lengths, budget):
        if window.first > 0:
            assert sum(lengths[window.first - 1 : window.stop]) > budget


@given(lengths=LENGTHS, budget=st.integers(20, 60))
def test_a_dialogue_that_fits_is_one_window(lengths, budget):
    if lengths and sum(lengths) <= budget:
        assert len(plan_windows(lengths, budget)) == 1


@given(lengths=LENGTHS, budget=st.integers(0, 100))
def test_the_earliest_turn_that_fits_is_found(lengths, budget):
    expected = min((first for first in range(len(lengths) + 1) if sum(lengths[first:]) <= budget), default=len(lengths))
    assert first_that_fits(lengths, budget) == expected


def test_a_turn_longer_than_the_window_is_refused():
    with pytest.raises(ValueError, match="a turn of 30 tokens does not fit into 20"):
        plan_windows([5, 30, 5], 20)
