"""Batches and the summed loss, against numbers computed by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from convo_cli.data.store import ASSISTANT_TARGET, NO_TARGET, USER_TARGET, Example
from convo_cli.model.loss import IGNORE_INDEX, Batch, collate, nll_sum

PAD = 9


def example(ids, targets):
    return Example(np.array(ids, np.int32), np.array(targets, np.uint8))


SHORT = example([5, 6, 7], [NO_TARGET, USER_TARGET, ASSISTANT_TARGET])
LONG = example([1, 2, 3, PAD, 4], [NO_TARGET, NO_TARGET, ASSISTANT_TARGET, ASSISTANT_TARGET, USER_TARGET])


def test_examples_are_padded_on_the_right_and_padding_is_neither_seen_nor_learnt():
    batch = collate([SHORT, LONG], {ASSISTANT_TARGET}, PAD)
    assert batch.input_ids.tolist() == [[5, 6, 7, PAD, PAD], [1, 2, 3, PAD, 4]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    ignored = IGNORE_INDEX
    assert batch.labels.tolist() == [[ignored, ignored, 7, ignored, ignored], [ignored, ignored, 3, PAD, ignored]]
    assert (batch.num_tokens, batch.num_targets) == (8, 3)


@pytest.mark.parametrize(("kinds", "targets"), [((USER_TARGET,), 2), ((ASSISTANT_TARGET, USER_TARGET), 5), ((), 0)])
def test_only_the_kinds_asked_for_are_learnt(kinds, targets):
    assert collate([SHORT, LONG], kinds, PAD).num_targets == targets


def test_a_batch_moves_as_a_whole():
    batch = collate([SHORT], {ASSISTANT_TARGET}, PAD).to(torch.device("meta"))
    assert isinstance(batch, Batch)
    assert {batch.input_ids.device.type, batch.attention_mask.device.type, batch.labels.device.type} == {"meta"}
    assert (batch.num_tokens, batch.num_targets) == (3, 1)


def test_the_loss_is_the_sum_over_targets_of_what_the_token_before_predicts():
    """A model that gives token t+1 after token t the probability 1/2 and shares the rest among the 9 others."""

    def model(input_ids, attention_mask, use_cache):
        assert not use_cache
        probabilities = torch.full((*input_ids.shape, 10), 0.5 / 9)
        probabilities.scatter_(2, (input_ids + 1).clamp(max=9).unsqueeze(2), 0.5)
        return SimpleNamespace(logits=probabilities.log().bfloat16())

    loss = nll_sum(model, collate([SHORT, LONG], {ASSISTANT_TARGET, USER_TARGET}, PAD))
    expected = -np.log([0.5, 0.5, 0.5, 0.5 / 9, 0.5 / 9]).sum()  # 5>6, 6>7, 2>3 follow; 3>9, 9>4 do not
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert abs(float(loss) - expected) < 0.05  # logits of 8 bits


def test_a_batch_without_targets_has_no_loss_and_no_gradient():
    weight = torch.nn.Parameter(torch.ones(10))
    model = lambda input_ids, **_: SimpleNamespace(logits=weight.expand(*input_ids.shape, 10))  # noqa: E731
    loss = nll_sum(model, collate([SHORT], (), PAD))
    loss.backward()
    assert loss.item() == 0.0
    assert weight.grad is not None
    assert weight.grad.abs().max() == 0
