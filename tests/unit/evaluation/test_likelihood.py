"""The loss of an evaluation: every example once, every token with the same weight."""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.config.schema import ScratchConfig
from convo_cli.evaluation.likelihood import length_sorted_rows, nll_by_groupings
from convo_cli.model.batches.attention import use_packed_attention
from convo_cli.model.batches.batching import Batching
from convo_cli.model.batches.loss import nll_sum, pad
from convo_cli.model.create import build_scratch_model
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET, Example
from tests.stores import encoded, laid_out

CPU = torch.device("cpu")
PADDED = Batching(is_packed=False, has_plain_head=True, pad_id=0)
PACKED = Batching(is_packed=True, has_plain_head=True, pad_id=0)


def store_of(lengths):
    """Example number k consists of tokens k; all but the first are targets."""
    return laid_out(
        [
            Example(np.full(length, number, np.int32), np.array([0] + [1] * (length - 1), np.uint8))
            for number, length in enumerate(lengths)
        ]
    )


def batches_of(store, kinds, batching, *, max_slots):
    for rows in length_sorted_rows(store, batching, max_slots=max_slots):
        yield batching.batch([store[row] for row in rows], kinds)


def mean_of(model, store, kinds, *, max_slots, on_batch=lambda num_examples: None):
    """The mean nll of the targets, and their number."""
    (found,) = nll_by_groupings(
        model, PADDED, store, kinds, [(lambda _, one: np.zeros(len(one.targets), int), 1)], CPU,
        nullcontext, on_batch, max_slots=max_slots,
    )  # fmt: skip
    return found.mean(), int(found.counts.sum())


@settings(deadline=None)
@given(lengths=st.lists(st.integers(2, 40), max_size=30), max_slots=st.integers(1, 100))
def test_batches_hold_each_example_once_and_no_more_slots_than_allowed(lengths, max_slots):
    seen = []
    for batch in batches_of(store_of(lengths), {ASSISTANT_TARGET}, PADDED, max_slots=max_slots):
        rows, width = batch.input_ids.shape
        assert rows * width <= max_slots or rows == 1
        assert batch.num_targets == batch.num_tokens - rows
        seen += [
            (int(row[0]), int(mask.sum()))
            for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
        ]
    assert sorted(seen) == list(enumerate(lengths))
    assert [length for _, length in seen] == sorted(lengths)


def test_no_row_is_added_that_still_fits():
    """The fewest batches that neighbours of similar length allow."""
    shapes = [
        tuple(batch.input_ids.shape)
        for batch in batches_of(store_of([5, 2, 2, 5, 2]), (), PADDED, max_slots=10)
    ]
    assert shapes == [(3, 2), (2, 5)]


@settings(deadline=None)
@given(lengths=st.lists(st.integers(2, 40), max_size=30), max_slots=st.integers(1, 100))
def test_packs_hold_each_example_once_and_no_more_tokens_than_allowed(lengths, max_slots):
    batches = list(batches_of(store_of(lengths), {ASSISTANT_TARGET}, PACKED, max_slots=max_slots))
    assert all(batch.num_tokens <= max_slots or batch.num_examples == 1 for batch in batches)
    assert [length for batch in batches for length in batch.segments.lengths] == sorted(lengths)
    assert all(
        one.num_tokens + other.segments.lengths[0] > max_slots for one, other in pairwise(batches)
    ), "no example is left out of a pack that had room for it"


@pytest.fixture(scope="module")
def parts(make_encoder, sample_dialogues):
    encoder = make_encoder()
    model = build_scratch_model(
        ScratchConfig(layers=1, width=16, heads=2, context=128, dropout=0.5), encoder, seed=0
    )
    return model, encoded(encoder, sample_dialogues[:12]), encoder


def test_the_mean_is_that_of_all_tokens_one_example_at_a_time(parts):
    model, store, encoder = parts
    model.eval()
    with torch.no_grad():
        alone = [pad([store[k]], {ASSISTANT_TARGET}, encoder.pad_id) for k in range(len(store))]
        sums = [float(nll_sum(model, batch)) for batch in alone]
    counts = [batch.num_targets for batch in alone]
    means = [total / count for total, count in zip(sums, counts, strict=True)]
    for max_slots in (1, 200, 100_000):
        loss, num_targets = mean_of(model, store, {ASSISTANT_TARGET}, max_slots=max_slots)
        assert num_targets == sum(counts) == store.num_targets(ASSISTANT_TARGET)
        assert loss == pytest.approx(sum(sums) / sum(counts), rel=1e-5)
        assert abs(loss - sum(means) / len(means)) > 1e-5, (
            "the mean of means would be another number"
        )


def test_dropout_is_off_no_graph_is_kept_and_progress_is_emitted(parts):
    model, store, _ = parts
    counts = []

    def measure():
        model.train()
        return mean_of(model, store, {ASSISTANT_TARGET}, max_slots=300, on_batch=counts.append)

    assert measure() == measure()
    assert not model.training
    assert sum(counts) == 2 * len(store)
    assert len(counts) > 2
    assert all(parameter.grad is None for parameter in model.parameters())


def test_nothing_to_score_is_zero_targets_and_has_no_mean(parts):
    assert mean_of(parts[0], parts[1], (), max_slots=300) == (None, 0)


def test_a_new_model_is_about_as_good_as_guessing(parts):
    model, store, encoder = parts
    loss, _ = mean_of(model, store, {ASSISTANT_TARGET}, max_slots=1000)
    assert loss == pytest.approx(math.log(len(encoder.tokenizer)), abs=0.2)


BOTH = (ASSISTANT_TARGET, USER_TARGET)


@pytest.mark.parametrize("batching", [PADDED, replace(PADDED, has_plain_head=False), PACKED])
@pytest.mark.parametrize("kinds", [BOTH, (ASSISTANT_TARGET,), ()])
def test_the_nll_of_each_target_is_that_of_the_target_alone_and_they_add_up(parts, batching, kinds):
    model, store, _ = parts
    model.eval()
    examples = [store[k] for k in range(4)]
    with packed_attention(model):
        batch = batching.batch(examples, kinds)
        _, each = batching.nll(model, batch)
        total = batching.nll_sum(model, batch)
    assert each.shape == (batch.num_targets,)
    assert each.dtype == torch.float32
    assert float(each.sum()) == pytest.approx(float(total.detach()), rel=1e-5)
    one_by_one = [
        float(nll_sum(model, one).detach())
        for example in examples
        for one in single_targets(example, kinds)
    ]
    assert each.tolist() == pytest.approx(one_by_one, rel=1e-4, abs=1e-5)


@contextmanager
def packed_attention(model):
    before = use_packed_attention(model)
    try:
        with torch.no_grad():
            yield
    finally:
        model.set_attn_implementation(before)


def single_targets(example, kinds):
    """The example once for each of its targets, with only that one."""
    for position in np.flatnonzero(np.isin(example.targets, kinds)):
        if position:
            targets = np.zeros_like(example.targets)
            targets[position] = ASSISTANT_TARGET
            yield pad([Example(example.input_ids, targets)], (ASSISTANT_TARGET,), 0)


@pytest.mark.parametrize("max_slots", [1, 300, 100_000])
def test_groups_of_targets_add_up_to_the_whole_and_each_target_counts_once(parts, max_slots):
    model, store, _ = parts

    def by_kind_and_dialogue(index, example):
        return example.targets.astype(np.int64) - 1 + 2 * store.dialogue_of[index]

    num_groups = 2 * len(store.dialogues)
    (grouped,) = nll_by_groupings(
        model, PADDED, store, BOTH, [(by_kind_and_dialogue, num_groups)], CPU, nullcontext,
        max_slots=max_slots,
    )  # fmt: skip
    for kind in BOTH:
        assert grouped.counts[kind - 1 :: 2].sum() == store.num_targets(kind)
    for kinds, part in ((BOTH, slice(None)), ((ASSISTANT_TARGET,), slice(0, None, 2))):
        loss, num_targets = mean_of(model, store, kinds, max_slots=200)
        assert grouped.counts[part].sum() == num_targets
        assert grouped.mean(part) == pytest.approx(loss, rel=1e-5)
    first = [store[k] for k in np.flatnonzero(store.dialogue_of == 0)]
    with torch.no_grad():
        alone = sum(float(nll_sum(model, pad([one], (ASSISTANT_TARGET,), 0))) for one in first)
    assert grouped.nll[0] == pytest.approx(alone, rel=1e-5)


class ScarceMemory(Batching):
    """Fails like torch for a batch of more than 60 tokens."""

    def nll(self, model, batch):
        if batch.num_tokens > 60:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return super().nll(model, batch)


@pytest.mark.parametrize("lengths", [[2] * 200, [3, 60, 5, 7, 59, 2, 2, 31] * 5, [60]])
def test_a_batch_that_does_not_fit_into_memory_is_taken_in_smaller_ones(parts, lengths):
    model, _, _ = parts
    found = [
        nll_by_groupings(
            model, kind(is_packed=False, has_plain_head=True, pad_id=0), store_of(lengths),
            (ASSISTANT_TARGET,), [(lambda index, one: np.full(len(one.targets), index), 300)],
            CPU, nullcontext, max_slots=1000,
        )[0]
        for kind in (Batching, ScarceMemory)
    ]  # fmt: skip
    np.testing.assert_array_equal(found[0].counts, found[1].counts)
    np.testing.assert_allclose(found[0].nll, found[1].nll, rtol=1e-5)


def test_one_example_that_does_not_fit_into_memory_is_an_error(parts):
    model, _, _ = parts
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        nll_by_groupings(
            model, ScarceMemory(is_packed=False, has_plain_head=True, pad_id=0), store_of([5, 61]),
            (ASSISTANT_TARGET,), [(lambda _, one: np.zeros(len(one.targets), int), 1)],
            CPU, nullcontext, max_slots=1000,
        )  # fmt: skip


def test_a_group_without_targets_has_no_mean(parts):
    model, store, _ = parts
    (grouped,) = nll_by_groupings(
        model, PADDED, store, (ASSISTANT_TARGET,),
        [(lambda _, one: np.zeros(len(one.targets), int), 3)], CPU, nullcontext, max_slots=1000,
    )  # fmt: skip
    assert grouped.mean([1, 2]) is None
    assert grouped.mean() == grouped.mean([0])
