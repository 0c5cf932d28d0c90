"""Trial of a batch: what it measures, and that it leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from convo_cli.model.batches.attention import use_packed_attention
from convo_cli.model.batches.loss import nll_sum, pack
from convo_cli.model.memory.batch_trial import try_batch
from convo_cli.tokens.store import Example

MIB = 2**20


def batch_of(*lengths):
    return pack(
        [Example(np.full(length, 3, np.int32), np.ones(length, np.uint8)) for length in lengths],
        {1},
    )


@pytest.fixture
def model():
    config = GPT2Config(
        vocab_size=97, n_positions=512, n_embd=32, n_layer=2, n_head=4, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)  # with dropout
    use_packed_attention(model)
    return model.eval()


def test_a_trial_leaves_weights_mode_gradients_and_random_state(model):
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trial = try_batch(model, nll_sum, batch_of(40, 80))
    assert trial.seconds > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module.training for module in model.modules())


def test_a_trial_runs_in_training_mode(model):
    modes = []

    def watching(model, batch):
        modes.append(model.training)
        return nll_sum(model, batch)

    try_batch(model, watching, batch_of(40))
    assert modes == [True]


def test_a_trial_measures_its_peak(model):
    """A tensor of 200 MiB that lives only during the forward pass is the peak."""

    def large(model, batch):
        torch.ones(200 * MIB // 4).sum()
        return nll_sum(model, batch)

    peak = try_batch(model, large, batch_of(40)).peak_bytes
    assert 200 * MIB <= peak < 260 * MIB
    assert try_batch(model, nll_sum, batch_of(40)).peak_bytes < 60 * MIB


def test_a_lack_of_memory_is_a_value(model):
    def greedy(model, batch):
        nll_sum(model, batch).backward()
        return torch.empty(2**60)

    assert try_batch(model, greedy, batch_of(40)) is None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_any_other_error_is_raised(model):
    def wrong(model, batch):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        try_batch(model, wrong, batch_of(40))
    assert not model.training
