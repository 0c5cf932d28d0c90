"""The plan of a run counts its evaluations and checkpoints without a list of its steps."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.tokens.order import Order
from convo_cli.tokens.phase import Phase
from convo_cli.training.plan import _num_due

_LENGTHS = np.array([3, 7, 5, 1, 8, 2, 4], dtype=np.int64)
_INTERVALS = st.none() | st.integers(1, 12)


def parts_of(unit, batch, max_steps):
    phase = Phase(first_step=0, first_example=0, batch=batch, unit=unit)
    return SimpleNamespace(order=Order(_LENGTHS, 1, (phase,)), max_steps=max_steps)


@given(
    st.sampled_from(["examples", "tokens"]),
    st.integers(8, 40),
    st.integers(1, 60),
    st.lists(_INTERVALS, min_size=1, max_size=2),
)
def test_the_number_of_due_steps_is_that_of_the_steps_one_by_one(unit, batch, steps, intervals):
    parts = parts_of(unit, batch, steps)
    due = {steps}
    for every in intervals:
        is_due = parts.order.ends_epoch if every is None else lambda step, n=every: step % n == 0
        due |= set(filter(is_due, range(1, steps + 1)))
    assert _num_due(parts, *intervals) == len(due)


def test_a_billion_steps_are_counted_at_once():
    assert _num_due(parts_of("examples", 4, 10**9), 1, 3) == 10**9
    assert _num_due(parts_of("examples", 4, 10**9), 10**6, 10**6) == 1000
