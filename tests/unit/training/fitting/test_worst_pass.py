"""The worst pass of a size needs at least as much as any pass of any step of the run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.model.batches.batching import Batching
from convo_cli.tokens.order import Order, share_of
from convo_cli.tokens.phase import Phase
from convo_cli.training.fitting.worst_pass import WorstPasses

PACKED, PADDED = (Batching(is_packed, True, 0) for is_packed in (True, False))
WEIGHTS = st.sampled_from([0.5, 0.7, 1, 1.4, 2, 3])
FILES = st.lists(st.tuples(st.lists(st.integers(2, 300), min_size=2, max_size=12), WEIGHTS),
                 min_size=1, max_size=3)  # fmt: skip


def slots_of(batching, lengths):
    return batching.num_slots(int(lengths.sum()), longest=int(lengths.max()), count=len(lengths))


def order_of(files, batch, unit):
    lengths = np.array([length for of_file, _ in files for length in of_file])
    sizes = [(len(of_file), weight) for of_file, weight in files]
    return lengths, Order(lengths, 0, [Phase(batch=batch, unit=unit)], sizes)


@given(FILES, st.sampled_from([("examples", 1), ("examples", 9), ("tokens", 300), ("tokens", 900)]),
       st.sampled_from([PACKED, PADDED]), st.integers(1, 3))  # fmt: skip
def test_no_pass_of_a_run_is_larger(files, batch, batching, num_processes):
    unit, number = batch
    lengths, order = order_of(files, number, unit)
    worst = WorstPasses(lengths, order, batching, num_processes)
    sizes = worst.sizes()
    assert (sizes[0], sizes[-1]) == (worst.largest, 1)
    assert sizes == sorted(set(sizes))[::-1]
    for step in range(30):
        chosen = order.examples(step)
        chosen = chosen[np.argsort(lengths[chosen], kind="stable")]
        assert len(chosen) <= worst.largest
        for rank in range(num_processes):
            own = lengths[chosen[share_of(lengths[chosen], rank, num_processes)]]
            for size in sizes:
                # A step of tokens, or of several processes, is bounded to within an example.
                slack = 0 if (unit, num_processes) == ("examples", 1) else int(lengths.max())
                for part in batching.split(own, size):
                    assert slots_of(batching, own[part]) <= worst.num_slots(size) + slack


@given(FILES, st.integers(1, 12), st.sampled_from([PACKED, PADDED]))
def test_its_examples_are_a_pass_of_that_many_tokens(files, batch, batching):
    lengths, order = order_of(files, batch, "examples")
    worst = WorstPasses(lengths, order, batching)
    for size in worst.sizes():
        passes = [lengths[examples] for examples in worst.passes(size)]
        assert slots_of(batching, passes[0]) == worst.num_slots(size)
        assert max(map(max, passes)) == max(lengths)
        for chosen in passes:
            assert 1 <= len(chosen) <= size
            assert list(chosen) == sorted(chosen)
            assert batching.split(chosen, size) == [slice(0, len(chosen))]


def test_it_is_the_longest_examples_or_the_widest_rows():
    lengths, order = order_of([([500, *[40] * 30, *[50] * 30], 1)], 16, "examples")
    packed, padded = (WorstPasses(lengths, order, one) for one in (PACKED, PADDED))
    assert packed.sizes() == [16, 8, 4, 2, 1]
    # The longest twice: it may end an epoch and begin the next one.
    assert packed.num_slots(4) == 500 + 500 + 50 + 50
    # Padding to 500 would be more than another pass, so they are never in a pass with others.
    assert padded.num_slots(4) == 2 * 500
    assert padded.num_slots(2) == 2 * 500
    lengths, order = order_of([([500, *[40] * 100], 1)], 64, "examples")
    assert WorstPasses(lengths, order, PADDED).num_slots(64) == 64 * 40


@pytest.mark.parametrize(
    ("number", "num_processes", "sizes"),
    [
        (7, 1, [7, 4, 2, 1]),
        (1, 1, [1]),
        (24, 1, [24, 12, 6, 3, 2, 1]),
        (24, 2, [24, 12, 6, 3, 2, 1]),
        (9, 2, [9, 5, 3, 2, 1]),
        (2, 4, [2, 1]),
    ],
)
def test_each_size_cuts_a_step_into_twice_as_many_passes(number, num_processes, sizes):
    lengths, order = order_of([([30] * 50, 1)], number, "examples")
    assert WorstPasses(lengths, order, PACKED, num_processes).sizes() == sizes


def test_a_step_of_tokens_has_at_most_its_shortest_examples():
    lengths, order = order_of([([10] * 40 + [100], 1)], 200, "tokens")
    worst = WorstPasses(lengths, order, PACKED)
    assert worst.largest == 20
    # Two that begin and end an epoch, and as many as begin within the tokens of the step.
    assert [worst.num_slots(size) for size in (20, 10)] == [100 + 100 + 9 * 10, 100 + 100 + 8 * 10]
