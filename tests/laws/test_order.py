"""The order of examples is a pure function of (seed, phases, step); epochs are full shuffles."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.config.schema import TrainingConfig
from convo_cli.tokens.order import Order, share_of
from convo_cli.tokens.phase import Phase

SEEDS = st.integers(0, 2**63 - 1)
LENGTHS = st.lists(st.integers(2, 30), min_size=1, max_size=40)


def order_of(lengths, phase, seed=0):
    return Order(np.array(lengths), seed, [phase])


def by_tokens(lengths, batch_tokens, seed=0):
    return order_of(lengths, Phase(batch=batch_tokens, unit="tokens"), seed)


def require_whole_epochs(stream, num_examples):
    for epoch in range(len(stream) // num_examples):
        assert sorted(stream[epoch * num_examples : (epoch + 1) * num_examples]) == list(
            range(num_examples)
        )


@given(num=st.integers(1, 60), batch=st.integers(1, 20), seed=SEEDS)
def test_every_epoch_has_each_example_once_and_every_step_is_full(num, batch, seed):
    order = order_of([3] * num, Phase(batch=batch), seed)
    steps = [order.examples(step) for step in range(3 * num // batch + 2)]
    assert all(len(step) == batch for step in steps)
    require_whole_epochs([int(index) for step in steps for index in step], num)


def test_epochs_and_seeds_have_orders_of_their_own():
    phase = Phase(batch=100)
    first, second = (order_of([3] * 100, phase, 7).examples(step).tolist() for step in (0, 1))
    other = order_of([3] * 100, phase, 8).examples(0).tolist()
    assert first != second
    assert first != other
    assert first != list(range(100))


def test_a_step_does_not_depend_on_earlier_calls():
    alone = order_of([3] * 50, Phase(batch=8), 3).examples(40).tolist()
    order = order_of([3] * 50, Phase(batch=8), 3)
    for step in range(41):
        last = order.examples(step).tolist()
    assert last == alone


# Steps of so many tokens


@given(lengths=LENGTHS, batch_tokens=st.integers(30, 100), seed=SEEDS)
def test_steps_of_tokens_are_one_stream_of_whole_epochs_and_never_empty(
    lengths, batch_tokens, seed
):
    order = by_tokens(lengths, batch_tokens, seed)
    steps = [order.examples(step).tolist() for step in range(3 * sum(lengths) // batch_tokens + 2)]
    assert all(steps)
    require_whole_epochs([index for step in steps for index in step], len(lengths))
    assert all(abs(sum(lengths[k] for k in step) - batch_tokens) < max(lengths) for step in steps)


@given(lengths=LENGTHS, batch_tokens=st.integers(30, 100), step=st.integers(0, 10**6))
def test_a_step_of_tokens_does_not_depend_on_earlier_calls(lengths, batch_tokens, step):
    order = by_tokens(lengths, batch_tokens)
    order.examples(0), order.examples(step + 1)
    assert order.examples(step).tolist() == by_tokens(lengths, batch_tokens).examples(step).tolist()


# Shares of several processes


@given(lengths=st.lists(st.integers(1, 200), max_size=60), size=st.integers(1, 8))
def test_the_shares_of_a_step_are_disjoint_complete_and_balanced_by_tokens(lengths, size):
    shares = [share_of(np.array(lengths, np.int64), rank, size) for rank in range(size)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(len(lengths)))
    assert all(share.tolist() == sorted(share.tolist()) for share in shares)
    tokens = [sum(lengths[place] for place in share) for share in shares]
    assert max(tokens) - min(tokens) <= max(lengths, default=0)


# Other batch settings at a resume

BATCHES = st.one_of(
    st.builds(TrainingConfig, max_steps=st.just(1), batch_size=st.integers(1, 50)),
    st.builds(
        TrainingConfig,
        max_steps=st.just(1),
        batch_size=st.none(),
        batch_tokens=st.integers(30, 300),
    ),
)


@given(
    lengths=LENGTHS,
    seed=SEEDS,
    sessions=st.lists(st.tuples(BATCHES, st.integers(0, 6)), min_size=1, max_size=5),
    epochs=st.floats(0.1, 5, allow_subnormal=False),
)
def test_batch_settings_may_change_at_any_resume_and_no_example_is_skipped_or_repeated(
    lengths, seed, sessions, epochs
):
    step, stream = 0, []
    order = Order(np.array(lengths), seed, [Phase.of(sessions[0][0])])
    for training, num_steps in sessions:
        from_checkpoint = Order(np.array(lengths), seed, order.phases)
        order = from_checkpoint.resumed(step, training)
        for _ in range(num_steps):
            examples = order.examples(step).tolist()
            assert len(examples) == training.batch_size or training.batch_tokens
            stream += examples
            step += 1
        assert order.epoch(step) == len(stream) / len(lengths)
    end = order.num_steps(epochs)
    stream += [int(index) for later in range(step, end) for index in order.examples(later)]
    require_whole_epochs(stream, len(lengths))
    assert stream == [
        int(index) for step in range(max(step, end)) for index in order.examples(step)
    ]
    if end > step:  # the run continues until its epochs are done, and no step longer
        assert (
            order.num_before(end - 1)
            < Fraction(str(epochs)) * len(lengths)
            <= order.num_before(end)
        )


@given(lengths=LENGTHS, training=BATCHES, epochs=st.integers(1, 3))
def test_a_run_of_whole_epochs_ends_with_the_step_that_completes_the_last(
    lengths, training, epochs
):
    order = Order(np.array(lengths), 0, [Phase.of(training)])
    end = order.num_steps(epochs)
    assert order.epoch(end - 1) < epochs <= order.epoch(end)
    assert order.ends_epoch(end)


def test_every_example_is_as_likely_to_share_a_step_with_any_other():
    """As random as a full shuffle: lengths decide how many dialogues a step has, never which."""
    lengths = [4] * 10 + [20] * 10
    together = np.zeros((20, 20))
    order = by_tokens(lengths, 60)
    for step in range(4000):
        chosen = order.examples(step)
        together[np.ix_(chosen, chosen)] += 1
    np.fill_diagonal(together, np.nan)
    for group in (slice(0, 10), slice(10, 20)):
        counts = together[group, group]
        assert np.nanstd(counts) < 3 * np.sqrt(np.nanmean(counts))
    mixed = together[:10, 10:]
    assert mixed.std() < 3 * np.sqrt(mixed.mean())
