"""The order of examples is a pure function of (seed, step) and a full shuffle of every epoch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from convo_cli.data.order import step_examples


@given(num=st.integers(1, 60), batch=st.integers(1, 20), seed=st.integers(0, 2**63 - 1))
def test_every_epoch_has_each_example_once_and_every_step_is_full(num, batch, seed):
    steps = [step_examples(num, batch, seed, step) for step in range(3 * num // batch + 2)]
    assert all(len(step) == batch for step in steps)
    stream = [int(index) for step in steps for index in step]
    for epoch in range(len(stream) // num):
        assert sorted(stream[epoch * num : (epoch + 1) * num]) == list(range(num))


def test_epochs_and_seeds_have_orders_of_their_own():
    first, second = (step_examples(100, 100, 7, step).tolist() for step in (0, 1))
    other = step_examples(100, 100, 8, 0).tolist()
    assert first != second
    assert first != other
    assert first != list(range(100))


def test_a_step_is_the_same_whatever_was_asked_before():
    alone = step_examples(50, 8, 3, 40).tolist()
    for step in range(41):
        last = step_examples(50, 8, 3, step).tolist()
    assert last == alone
