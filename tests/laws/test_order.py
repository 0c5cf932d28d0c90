"""The order of examples is a pure function of (seed, step) and a full shuffle of every epoch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.data.order import TokenBudget, step_examples
from convo_cli.data.store import Example
from tests.stores import laid_out


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


# Steps of so many tokens

LENGTHS = st.lists(st.integers(2, 30), min_size=1, max_size=40)


def budget(lengths, batch_tokens, seed=0):
    examples = [Example(np.zeros(length, np.int32), np.ones(length, np.uint8)) for length in lengths]
    return TokenBudget(laid_out(examples), batch_tokens, seed)


@given(lengths=LENGTHS, batch_tokens=st.integers(30, 100), seed=st.integers(0, 2**63 - 1))
def test_steps_of_tokens_are_one_stream_of_whole_epochs_and_never_empty(lengths, batch_tokens, seed):
    order = budget(lengths, batch_tokens, seed)
    steps = [order.step_examples(step).tolist() for step in range(3 * sum(lengths) // batch_tokens + 2)]
    assert all(steps)
    stream = [index for step in steps for index in step]
    for epoch in range(len(stream) // len(lengths)):
        assert sorted(stream[epoch * len(lengths) : (epoch + 1) * len(lengths)]) == list(range(len(lengths)))
    assert all(abs(sum(lengths[k] for k in step) - batch_tokens) < max(lengths) for step in steps)


@given(lengths=LENGTHS, batch_tokens=st.integers(30, 100), step=st.integers(0, 10**6))
def test_a_step_of_tokens_is_the_same_whatever_was_asked_before(lengths, batch_tokens, step):
    order = budget(lengths, batch_tokens)
    order.step_examples(0), order.step_examples(step + 1)
    assert order.step_examples(step).tolist() == budget(lengths, batch_tokens).step_examples(step).tolist()


def test_every_example_is_as_likely_to_share_a_step_with_any_other():
    """As random as a full shuffle: lengths decide how many dialogues a step has, never which."""
    lengths = [4] * 10 + [20] * 10
    together = np.zeros((20, 20))
    order = budget(lengths, 60)
    for step in range(4000):
        chosen = order.step_examples(step)
        together[np.ix_(chosen, chosen)] += 1
    np.fill_diagonal(together, np.nan)
    for group in (slice(0, 10), slice(10, 20)):
        counts = together[group, group]
        assert np.nanstd(counts) < 3 * np.sqrt(np.nanmean(counts))
    mixed = together[:10, 10:]
    assert mixed.std() < 3 * np.sqrt(mixed.mean())
