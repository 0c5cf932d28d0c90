"""Live tensors on fake tensors, against what torch's allocator reports for the real passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from convo_cli.model.batches.attention import use_packed_attention
from convo_cli.model.batches.loss import nll_sum, pack, pad, plain_nll_sum
from convo_cli.model.create import save_memory
from convo_cli.model.memory.live_tensors import live_peak
from convo_cli.tokens.store import Example
from tests.cases import quick_first

CONFIGS = {
    "gpt2": GPT2Config(
        vocab_size=970, n_positions=512, n_embd=64, n_layer=4, n_head=4, bos_token_id=0,
        eos_token_id=0,
    ),
    "llama": LlamaConfig(
        vocab_size=970, hidden_size=64, intermediate_size=128, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, bos_token_id=0, eos_token_id=0,
    ),
}  # fmt: skip


def examples(*lengths):
    return [Example(np.full(length, 3, np.int32), np.ones(length, np.uint8)) for length in lengths]


def model_of(name, *, is_packed=True, saves_memory=False):
    model = AutoModelForCausalLM.from_config(CONFIGS[name])
    if is_packed:
        use_packed_attention(model)
    if saves_memory:
        save_memory(model)
    return model.train()


def allocated(model, compute, batch):
    """The most bytes that torch's allocator gave out at once during the passes."""
    compute(model, batch).backward()  # the first pass of a process also allocates tables
    model.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        compute(model, batch).backward()
    events = profiler.profiler.kineto_results.events()
    changes = [event.nbytes() for event in sorted(events, key=lambda one: one.start_ns())
               if event.name() == "[memory]"]  # fmt: skip
    return max(np.cumsum(changes))


@pytest.mark.parametrize(
    ("name", "saves_memory"),
    quick_first([("gpt2", True), ("llama", False), ("gpt2", False), ("llama", True)], 2),
)
def test_the_peak_is_that_of_the_allocator(name, saves_memory):
    model = model_of(name, saves_memory=saves_memory)
    batch = pack(examples(100, 200, 300), {1})
    expected = allocated(model, nll_sum, batch)
    assert live_peak(model, nll_sum, batch, has_gradients=False).total == pytest.approx(
        expected, rel=0.05
    )


@pytest.mark.slow
def test_the_peak_of_padded_batches_and_plain_logits_is_that_of_the_allocator():
    model = model_of("llama", is_packed=False)
    batch = pad(examples(100, 200, 300), {1}, 0)
    expected = allocated(model, plain_nll_sum, batch)
    peak = live_peak(model, plain_nll_sum, batch, has_gradients=False)
    assert peak.total == pytest.approx(expected, rel=0.15)  # fake tensors get a mask
    assert peak.logits >= 4 * 970 * 3 * 300


def test_recomputed_activations_are_fewer():
    model, batch = model_of("gpt2"), pack(examples(100, 200, 300), {1})
    kept = live_peak(model, nll_sum, batch, has_gradients=True)
    recomputed = live_peak(model, nll_sum, batch, has_gradients=True, saves_memory=True)
    assert recomputed.activations < kept.activations / 2
    assert recomputed.gradients == kept.gradients == 4 * model.num_parameters()
    saving = model_of("gpt2", saves_memory=True)
    assert live_peak(saving, nll_sum, batch, has_gradients=True) == recomputed


def test_more_tokens_need_more_and_an_evaluation_less():
    model = model_of("gpt2")
    some, more = pack(examples(100), {1}), pack(examples(100, 300), {1})
    peaks = [live_peak(model, nll_sum, batch, has_gradients=False) for batch in (some, more)]
    assert peaks[1].activations > 3 * peaks[0].activations
    forward = live_peak(model, nll_sum, more, has_gradients=False, is_trained=False)
    assert forward.activations < peaks[1].activations / 3
    assert forward.gradients == 0


def test_nothing_of_the_model_changes():
    model, batch = model_of("gpt2"), pack(examples(100), {1})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    live_peak(model, nll_sum, batch, has_gradients=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())
