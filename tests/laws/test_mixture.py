"""An epoch passes over each file by its weight; the stream stays a function of seed and place."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.errors import DataError
from convo_cli.tokens.mixture import Mixture
from convo_cli.tokens.order import Order
from convo_cli.tokens.phase import Phase

SEEDS = st.integers(0, 2**63 - 1)
WEIGHTS = st.one_of(
    st.integers(1, 5), st.sampled_from([0.1, 0.25, 0.5, 1 / 3, 1.1, 2.75]), st.floats(0.05, 4)
)
FILES = st.lists(st.tuples(st.integers(0, 12), WEIGHTS), min_size=1, max_size=5).filter(
    lambda files: any(Fraction(str(weight)) * size >= 1 for size, weight in files)
)
PHASES = st.one_of(
    st.builds(Phase, batch=st.integers(1, 30)),
    st.builds(Phase, batch=st.integers(30, 200), unit=st.just("tokens")),
)


def parts(files):
    """The examples of each file."""
    ends = np.cumsum([size for size, _ in files])
    return [range(int(end) - size, int(end)) for (size, _), end in zip(files, ends, strict=True)]


def order_of(files, seed, phase):
    num = sum(size for size, _ in files)
    return Order(np.random.default_rng(num).integers(2, 30, num), seed, [phase], files)


@given(files=FILES, seed=SEEDS)
def test_an_epoch_takes_of_each_file_its_weight_to_within_one_example(files, seed):
    mixture = Mixture(files, seed)
    for epoch in range(6):
        taken = Counter(mixture.order(epoch).tolist())
        for (size, weight), part in zip(files, parts(files), strict=True):
            num = sum(taken[example] for example in part)
            assert abs(num - Fraction(str(weight)) * size) < 1
            # Less than a pass at the beginning, whole passes, and less than one at the end.
            counts = [taken[example] for example in part] or [0]
            assert max(counts) - min(counts) <= 2


@given(size=st.integers(1, 30), other=st.integers(1, 30), seed=SEEDS, tenths=st.integers(1, 40))
def test_epochs_that_make_whole_passes_have_every_example_equally_often(size, other, seed, tenths):
    weight = Fraction(tenths, 10)
    mixture = Mixture([(other, 1), (size, tenths / 10)], seed)
    stream = Counter()
    for epoch in range(2 * weight.denominator):
        stream.update(mixture.order(epoch).tolist())
        if (epoch + 1) % weight.denominator == 0:
            passes = (epoch + 1) * weight
            assert {stream[other + example] for example in range(size)} == {passes}
            assert {stream[example] for example in range(other)} == {epoch + 1}


@given(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any), seed=SEEDS)
def test_without_weights_an_epoch_is_one_shuffle_of_all_examples(sizes, seed):
    """The order of runs that began without weights, which must resume with it."""
    mixture = Mixture([(size, 1) for size in sizes], seed)
    for epoch in range(3):
        expected = np.random.default_rng([seed, epoch]).permutation(sum(sizes))
        assert mixture.order(epoch).tolist() == expected.tolist()


@given(files=FILES, seed=SEEDS, phase=PHASES, epochs=st.integers(1, 4))
def test_steps_epochs_and_totals_describe_one_stream(files, seed, phase, epochs):
    order, mixture = order_of(files, seed, phase), Mixture(files, seed)
    end = order.num_steps(epochs)
    steps = [order.examples(step).tolist() for step in range(end)]
    stream = [example for step in steps for example in step]
    whole = [example for epoch in range(epochs) for example in mixture.order(epoch).tolist()]
    assert stream[: len(whole)] == whole
    assert order.num_before(end) == len(stream) >= len(whole) > order.num_before(end - 1)
    assert order.ends_epoch(end)
    assert order.epoch(end - 1) < epochs <= order.epoch(end)
    num_ends = sum(map(order.ends_epoch, range(1, end + 1)))
    assert num_ends <= epochs <= order.epoch(end)
    values = np.arange(sum(size for size, _ in files)) ** 2
    for step in {0, 1, end // 2, end}:
        before = [example for one in steps[:step] for example in one]
        assert order.totals(values, step) == [
            sum(int(values[example]) for example in before if example in part)
            for part in parts(files)
        ]
        assert order.total(values, step) == sum(order.totals(values, step))


@given(files=FILES, seed=SEEDS, phase=PHASES, step=st.integers(0, 10**6))
def test_a_step_of_a_mixture_does_not_depend_on_earlier_calls(files, seed, phase, step):
    order = order_of(files, seed, phase)
    order.examples(0), order.examples(step + 1)
    assert order.examples(step).tolist() == order_of(files, seed, phase).examples(step).tolist()


def test_two_files_and_two_passes_have_orders_of_their_own():
    mixture = Mixture([(200, 1.5), (200, 0.5)], 7)
    first, second = ([e for e in mixture.order(epoch).tolist() if e >= 200] for epoch in (0, 1))
    assert sorted(first + second) == list(range(200, 400))
    assert sorted(first) != list(range(200, 300))
    assert {
        example + 200 for example, n in Counter(mixture.order(0).tolist()).items() if n > 1
    } != {*first}


def test_weights_that_leave_an_epoch_empty_are_refused():
    with pytest.raises(DataError, match="an epoch may have no example"):
        Mixture([(10, 0.05), (10, 0.09)], 0)
