"""Cutting of a step into forward passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.model.batches.batching import _PASS_COST, Batching, proof_examples
from convo_cli.tokens.store import Example
from tests.stores import laid_out

PADDED = Batching(is_packed=False, has_plain_head=True, pad_id=0)
PACKED = Batching(is_packed=True, has_plain_head=True, pad_id=0)
lengths_of_a_step = st.lists(st.integers(1, 1024), min_size=1, max_size=80).map(sorted)


@given(lengths_of_a_step, st.integers(1, 80), st.booleans())
def test_every_example_is_in_one_pass_in_order_and_no_pass_has_too_many(lengths, most, is_packed):
    slices = (PACKED if is_packed else PADDED).split(np.array(lengths), most)
    assert [index for part in slices for index in range(part.start, part.stop)] == list(
        range(len(lengths))
    )
    assert all(0 < part.stop - part.start <= most for part in slices)


@given(lengths_of_a_step)
def test_a_pass_is_never_padded_by_more_than_another_pass_costs(lengths):
    for part in PADDED.split(np.array(lengths), len(lengths)):
        chosen = lengths[part]
        assert max(chosen) * len(chosen) - sum(chosen) <= _PASS_COST


@given(lengths_of_a_step)
def test_passes_are_cut_only_where_one_more_example_would_be_padded_by_more(lengths):
    slices = PADDED.split(np.array(lengths), len(lengths))
    for part in slices[1:]:
        longer = lengths[part.start - 1 : part.stop]
        assert max(longer) * len(longer) - sum(longer) > _PASS_COST


@pytest.mark.parametrize("most", [1, 7, 50])
def test_a_pack_is_cut_by_number_alone(most):
    slices = PACKED.split(np.arange(1, 51), most)
    assert len(slices) == -(-50 // most)


def test_the_examples_of_the_proof_come_from_the_whole_store():
    """The dialogues of its first file may all be short."""
    store = laid_out([example(3)] * 1000 + [example(50)] * 1000)
    assert {len(one.input_ids) for one in proof_examples(store, (1,))} == {3, 50}
    assert len(proof_examples(laid_out([example(3)]), (1,))) == 2


def example(size):
    return Example(np.arange(size, dtype=np.int32), np.array([0] + [1] * (size - 1), np.uint8))
