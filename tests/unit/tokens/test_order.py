"""The order of examples, by example; its laws are in tests/laws/test_order.py."""

from __future__ import annotations

import numpy as np
import pytest

from convo_cli.config.schema import TrainingConfig
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.tokens.order import Order
from convo_cli.tokens.phase import Phase
from convo_cli.tokens.store import LEFT_OUT, Encoded, Example, TokenStore


def order_of(num_examples, batch, seed=1, length=3):
    return Order(np.full(num_examples, length), seed, [Phase(batch=batch)])


def training(**batch):
    return TrainingConfig(max_steps=1, **batch)


def test_a_batch_larger_than_the_data_spans_several_epochs():
    step = order_of(3, 10).examples(0).tolist()
    assert [sorted(step[begin : begin + 3]) for begin in (0, 3, 6)] == [[0, 1, 2]] * 3
    assert step[9] in (0, 1, 2)


def test_the_last_step_of_an_epoch_is_filled_from_the_next():
    steps = [order_of(5, 4).examples(step).tolist() for step in range(5)]
    stream = [index for step in steps for index in step]
    assert [len(step) for step in steps] == [4] * 5
    assert [sorted(stream[begin : begin + 5]) for begin in (0, 5, 10, 15)] == [[0, 1, 2, 3, 4]] * 4


def test_asking_for_a_step_changes_no_other_step():
    order = order_of(50, 8, 3)
    expected = order.examples(2).copy()
    order.examples(2)[:] = -1
    assert order.examples(2).tolist() == expected.tolist()


@pytest.mark.parametrize("step", [0, 10**9])
def test_a_step_far_away_costs_no_more_than_the_first(step):
    order = order_of(1000, 16, 2**63 - 1).examples(step)
    assert order.dtype == np.int64
    assert len(order) == 16
    assert 0 <= order.min() <= order.max() < 1000


def test_the_order_is_the_same_on_every_machine_and_in_every_version():
    """A change here makes older runs resume with other data: it needs a new checkpoint format."""
    assert order_of(10, 10, 42).examples(0).tolist() == [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]


def test_another_batch_size_continues_with_the_next_example_and_the_same_one_changes_nothing():
    order = order_of(100, 10)
    assert order.resumed(3, training(batch_size=10)) is order
    larger = order.resumed(3, training(batch_size=25))
    assert larger.phases[1] == Phase(first_step=3, first_example=30, batch=25)
    assert larger.examples(2).tolist() == order.examples(2).tolist()
    assert larger.examples(3).tolist() == [
        *order.examples(3),
        *order.examples(4),
        *order.examples(5)[:5],
    ]
    assert (larger.epoch(3), larger.epoch(4)) == (0.3, 0.55)


def test_a_phase_without_a_step_is_replaced():
    order = order_of(100, 10).resumed(3, training(batch_size=25)).resumed(3, training(batch_size=5))
    assert order.phases == (Phase(batch=10), Phase(first_step=3, first_example=30, batch=5))


@pytest.mark.parametrize(
    ("epochs", "num_steps"),
    [(1, 10), (0.25, 3), (2, 20), (1.1, 11), (0.7, 7), (1e-9, 1), (3.01, 31)],
)
def test_the_length_of_a_run_of_epochs_is_rounded_up_and_without_error(epochs, num_steps):
    assert order_of(100, 10).num_steps(epochs) == num_steps


def test_a_resumed_run_does_what_is_left_of_its_epochs():
    order = order_of(100, 10)
    assert order.resumed(4, training(batch_size=20)).num_steps(2) == 4 + 8
    assert order.resumed(10, training(batch_size=20)).num_steps(1) == 10
    assert order.resumed(20, training(batch_size=20)).num_steps(1) == 20, (
        "more than was asked for is done already"
    )
    assert order.resumed(4, training(batch_size=None, batch_tokens=30)).num_steps(2) == 4 + 16
    assert order_of(100, 10).resumed(4, training(batch_size=20)).steps_per_epoch == 5


def test_an_epoch_ends_with_the_step_that_takes_its_last_example():
    assert [step for step in range(20) if order_of(10, 4).ends_epoch(step)] == [
        3,
        5,
        8,
        10,
        13,
        15,
        18,
    ]
    assert [step for step in range(9) if order_of(10, 5).ends_epoch(step)] == [2, 4, 6, 8]
    assert [step for step in range(3) if order_of(10, 25).ends_epoch(step)] == [1, 2]
    resumed = order_of(10, 4).resumed(3, training(batch_size=1))
    assert [step for step in range(13) if resumed.ends_epoch(step)] == [3, 11], (
        "12 examples in 3 steps, then one each"
    )


def test_the_parts_of_a_store_are_its_files_in_order_without_those_that_have_no_example():
    files = ["a", "b", "c", "d"]
    example = Encoded([Example(np.zeros(3, np.int32), np.array([0, 1, 1], np.uint8))], 3)
    encoded = [
        (Dialogue((Turn("user", "-"),), 1, file), LEFT_OUT if file == "c" else example)
        for file in "aaacbda"
    ]
    assert TokenStore.build(encoded, files).file_stretches == [(0, 3), (1, 1), (3, 1), (0, 1)]
