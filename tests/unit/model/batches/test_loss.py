"""Batches and the summed loss, against numbers computed by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from convo_cli.model.batches.loss import Batch, nll_sum, pack, pad, plain_nll_sum
from convo_cli.tokens.store import ASSISTANT_TARGET, NO_TARGET, USER_TARGET, Example

PAD = 9
BOTH = {ASSISTANT_TARGET, USER_TARGET}


def example(ids, targets):
    return Example(np.array(ids, np.int32), np.array(targets, np.uint8))


SHORT = example([5, 6, 7], [NO_TARGET, USER_TARGET, ASSISTANT_TARGET])
LONG = example(
    [1, 2, 3, PAD, 4], [NO_TARGET, NO_TARGET, ASSISTANT_TARGET, ASSISTANT_TARGET, USER_TARGET]
)


def test_a_padded_batch_has_a_row_for_each_example_and_padding_is_never_seen_or_a_target():
    batch = pad([SHORT, LONG], {ASSISTANT_TARGET}, PAD)
    assert batch.input_ids.tolist() == [[5, 6, 7, PAD, PAD], [1, 2, 3, PAD, 4]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.predictors.tolist() == [1, 6, 7]
    assert batch.labels.tolist() == [7, 3, PAD]
    assert (batch.num_examples, batch.num_tokens, batch.num_targets) == (2, 8, 3)


def test_a_pack_is_one_row_with_positions_of_each_example():
    batch = pack([SHORT, LONG], {ASSISTANT_TARGET})
    assert batch.input_ids.tolist() == [[5, 6, 7, 1, 2, 3, PAD, 4]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 2, 3, 4]]
    assert batch.predictors.tolist() == [1, 4, 5]
    assert batch.labels.tolist() == [7, 3, PAD]
    assert (batch.segments.lengths, batch.segments.longest) == ((3, 5), 5)
    assert batch.segments.boundaries.tolist() == [0, 3, 8]
    assert (batch.num_examples, batch.num_tokens, batch.num_targets) == (2, 8, 3)


@pytest.mark.parametrize(
    ("kinds", "targets"), [((USER_TARGET,), 2), ((ASSISTANT_TARGET, USER_TARGET), 5), ((), 0)]
)
def test_only_the_given_kinds_are_targets(kinds, targets):
    assert pad([SHORT, LONG], kinds, PAD).num_targets == targets
    assert pack([SHORT, LONG], kinds).num_targets == targets


def test_the_first_token_is_never_a_target():
    wrong = example([1, 2], [ASSISTANT_TARGET, ASSISTANT_TARGET])
    for batch in (pad([SHORT, wrong], BOTH, PAD), pack([SHORT, wrong], BOTH)):
        assert batch.labels.tolist() == [6, 7, 2]


@pytest.mark.parametrize("make", [lambda: pad([SHORT], BOTH, PAD), lambda: pack([SHORT], BOTH)])
def test_a_batch_moves_as_a_whole(make):
    before = make()
    batch = before.to(torch.device("meta"))
    assert isinstance(batch, Batch)
    tensors = [
        batch.input_ids,
        batch.predictors,
        batch.labels,
        batch.attention_mask,
        batch.position_ids,
    ]
    tensors += [batch.segments.boundaries] if batch.segments else []
    assert {tensor.device.type for tensor in tensors if tensor is not None} == {"meta"}
    assert (batch.num_tokens, batch.num_targets) == (before.num_tokens, before.num_targets)


class NextToken(torch.nn.Module):
    """A model that gives token t + 1 after token t the probability 1/2, and 1/18 to each other."""

    def __init__(self):
        super().__init__()
        table = torch.full((10, 10), 0.5 / 9)
        table[torch.arange(10), (torch.arange(10) + 1).clamp(max=9)] = 0.5
        self.head = torch.nn.Linear(10, 10, bias=False)
        self.head.weight.data = table.log().T
        self.base_model = self.body

    def body(self, input_ids, use_cache, **_):
        assert not use_cache
        return SimpleNamespace(last_hidden_state=torch.nn.functional.one_hot(input_ids, 10).float())

    def get_output_embeddings(self):
        return self.head

    def forward(self, **inputs):
        return SimpleNamespace(logits=self.head(self.body(**inputs).last_hidden_state).bfloat16())


@pytest.mark.parametrize("loss_of", [nll_sum, plain_nll_sum])
@pytest.mark.parametrize("batch", [pad([SHORT, LONG], BOTH, PAD), pack([SHORT, LONG], BOTH)])
def test_the_loss_is_the_sum_over_targets_of_what_the_token_before_predicts(loss_of, batch):
    loss = loss_of(NextToken(), batch).detach()
    expected = -np.log(
        [0.5, 0.5, 0.5, 0.5 / 9, 0.5 / 9]
    ).sum()  # 5>6, 6>7, 2>3 follow; 3>9, 9>4 do not
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert abs(float(loss) - expected) < 0.05  # logits of 8 bits


@pytest.mark.parametrize("loss_of", [nll_sum, plain_nll_sum])
def test_a_batch_without_targets_has_no_loss_and_no_gradient(loss_of):
    model = NextToken()
    loss = loss_of(model, pad([SHORT], (), PAD))
    loss.backward()
    assert loss.item() == 0.0
    assert model.head.weight.grad.abs().max() == 0
