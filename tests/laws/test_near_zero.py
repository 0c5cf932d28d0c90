"""The choice of batching stays right near a loss of 0, where rounding is relatively large."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, GPT2Config, LlamaConfig

from convo_cli.model.batches import attention
from convo_cli.model.batches.batching import choose_batching
from convo_cli.model.batches.loss import pad, plain_nll_sum
from convo_cli.tokens.store import ASSISTANT_TARGET, NO_TARGET, Example

VOCABULARY, PAD, KINDS = 50, 0, (ASSISTANT_TARGET,)
_SIZE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_GPT2: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_positions": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "bos_token_id": 1,
}
CONFIGS = {
    "gpt2": GPT2Config(**_GPT2, eos_token_id=2, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0),
    "llama": LlamaConfig(**_SIZE),
    "cohere": CohereConfig(**_SIZE, logit_scale=0.25),
}
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
LOSSES = [1e-3, 1e-4, 1e-5, 1e-6]
"""Nats a target."""


def some_examples():
    rng, examples = np.random.default_rng(0), []
    for number, length in enumerate((12, 4, 9, 30, 20)):
        ids = rng.integers(3, VOCABULARY, length).astype(np.int32)
        # The examples differ before their first target, so a model can memorise them.
        ids[:2] = 3 + number, 20 + number
        targets = np.full(length, ASSISTANT_TARGET, np.uint8)
        targets[:2] = NO_TARGET
        examples.append(Example(ids, targets))
    return examples


def mean_loss(model, examples):
    batch = pad(examples, KINDS, PAD)
    return plain_nll_sum(model, batch) / batch.num_targets


@pytest.fixture(scope="module")
def fitted():
    """Models by name that have memorised the examples, with a loss below 0.01 nats per target."""
    models, examples = {}, some_examples()
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        while (loss := mean_loss(model, examples)) > 1e-2:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        models[name] = model.eval().state_dict()
    return models


@pytest.fixture
def near_zero(fitted):
    """A maker of models with a given small loss: their logits are enlarged until they have it."""

    def make(name, loss):
        model = AutoModelForCausalLM.from_config(CONFIGS[name]).float().eval()
        model.load_state_dict(fitted[name])
        norm = model.base_model.ln_f if name == "gpt2" else model.base_model.norm
        with torch.no_grad():
            while mean_loss(model, some_examples()) > loss:
                for parameter in norm.parameters():
                    parameter *= 1.05
        return model

    return make


def choose(model, precision="fp32", *, packing="auto", is_trained=True):
    dtype = PRECISIONS[precision]
    autocast = nullcontext if dtype is None else lambda: torch.autocast("cpu", dtype=dtype)
    return choose_batching(
        model, some_examples(), KINDS, packing=packing, pad_id=PAD, autocast=autocast,
        emit=lambda event: None, is_trained=is_trained,
    )  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_choice_is_that_of_an_untrained_model(near_zero, name, precision, loss):
    """Packed, padded, and with all logits if they are more than a product."""
    model = near_zero(name, loss)
    for packing in ("auto", "off"):
        batching = choose(model, precision, packing=packing)
        assert (batching.is_packed, batching.has_plain_head) == (
            packing == "auto",
            name != "cohere",
        )


@pytest.mark.parametrize("loss", LOSSES)
def test_evaluation_chooses_the_same(near_zero, loss):
    for name in CONFIGS:
        batching = choose(near_zero(name, loss), is_trained=False)
        assert (batching.is_packed, batching.has_plain_head) == (True, name != "cohere")


@pytest.mark.parametrize("is_trained", [True, False], ids=["trained", "evaluated"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_packing_in_which_one_example_sees_its_neighbour_is_refused(
    near_zero, monkeypatch, name, loss, is_trained
):
    honest = attention.packed_attention

    def leaky(module, query, key, value, mask, *, segments=None, **options):
        if segments is not None:
            *lengths, one, other = segments.lengths
            lengths = (*lengths, one + other)
            boundaries = torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32)
            segments = attention.Segments(lengths, max(lengths), boundaries)
        return honest(module, query, key, value, mask, segments=segments, **options)

    monkeypatch.setattr(attention, "packed_attention", leaky)
    for precision in PRECISIONS if is_trained else ["fp32"]:
        batching = choose(near_zero(name, loss), precision, is_trained=is_trained)
        assert not batching.is_packed
        assert "one dialogue at a time" in batching.why_padded
