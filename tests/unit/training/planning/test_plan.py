"""The plan of a run counts its evaluations and checkpoints without a list of its steps."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.tokens.order import Order
from convo_cli.tokens.phase import Phase
from convo_cli.training.planning.plan import _max_checkpoints, _num_due

_LENGTHS = np.array([3, 7, 5, 1, 8, 2, 4], dtype=np.int64)
_INTERVALS = st.none() | st.integers(1, 12)


def parts_of(unit, batch, max_steps):
    phase = Phase(first_step=0, first_example=0, batch=batch, unit=unit)
    return SimpleNamespace(order=Order(_LENGTHS, 1, (phase,)), max_steps=max_steps)


def kept_parts(keep, keep_best, monitor, reply_dialogues):
    config = SimpleNamespace(
        checkpoints=SimpleNamespace(keep=keep, keep_best=keep_best),
        evaluation=SimpleNamespace(early_stopping=SimpleNamespace(monitor=monitor)),
    )
    return SimpleNamespace(config=config, reply_dialogues=reply_dialogues)


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


@pytest.mark.parametrize(
    ("keep", "keep_best", "monitor", "has_replies", "num_evaluations", "num_checkpoints", "most"),
    [
        (2, 1, "loss", True, 9, 99, 2 + 2 + 1),
        (2, 1, "loss", False, 9, 99, 2 + 1 + 1),
        (2, 1, "loss", False, 0, 99, 2 + 0 + 1),
        (1, 4, "loss", True, 9, 99, 1 + 4 + 1 + 1),
        (1, 4, "metric", True, 9, 99, 1 + 4 + 1 + 1),
        (1, 4, "metric", False, 9, 99, 1 + 1 + 1),  # no replies, so nothing has a metric
        (1, 50, "loss", True, 3, 99, 1 + 3 + 1),
        (9, 50, "loss", True, 20, 7, 7),
    ],
)
def test_the_checkpoints_at_once_are_the_newest_the_best_and_the_one_being_written(
    keep, keep_best, monitor, has_replies, num_evaluations, num_checkpoints, most
):
    parts = kept_parts(keep, keep_best, monitor, ("a dialogue",) if has_replies else ())
    assert _max_checkpoints(parts, num_checkpoints, num_evaluations) == most
