"""The order of examples, by example; its laws are in tests/laws/test_order.py."""

from __future__ import annotations

import numpy as np
import pytest

from convo_cli.data.order import step_examples


def test_a_batch_larger_than_the_data_spans_several_epochs():
    step = step_examples(num_examples=3, batch_size=10, seed=1, step=0).tolist()
    assert [sorted(step[begin : begin + 3]) for begin in (0, 3, 6)] == [[0, 1, 2]] * 3
    assert step[9] in (0, 1, 2)


def test_the_last_step_of_an_epoch_is_filled_from_the_next():
    steps = [step_examples(5, 4, 1, step).tolist() for step in range(5)]
    stream = [index for step in steps for index in step]
    assert [len(step) for step in steps] == [4] * 5
    assert [sorted(stream[begin : begin + 5]) for begin in (0, 5, 10, 15)] == [[0, 1, 2, 3, 4]] * 4


def test_asking_for_a_step_changes_no_other_step():
    expected = step_examples(50, 8, 3, 2).copy()
    step_examples(50, 8, 3, 2)[:] = -1
    assert step_examples(50, 8, 3, 2).tolist() == expected.tolist()


@pytest.mark.parametrize("step", [0, 10**9])
def test_a_step_far_away_costs_no_more_than_the_first(step):
    order = step_examples(1000, 16, 2**63 - 1, step)
    assert order.dtype == np.int64
    assert len(order) == 16
    assert 0 <= order.min() <= order.max() < 1000


def test_the_order_is_the_same_on_every_machine_and_in_every_version():
    """A change here makes every run of before resume with other data: it needs a new format of checkpoints."""
    assert step_examples(10, 10, 42, 0).tolist() == [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]
