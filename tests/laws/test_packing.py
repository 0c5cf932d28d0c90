"""Packing changes nothing but rounding: each dialogue attends only to itself."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from convo_cli.errors import ModelError
from convo_cli.events import Notice
from convo_cli.model.batches import attention
from convo_cli.model.batches import batching as module
from convo_cli.model.batches.attention import use_packed_attention, why_not_packed
from convo_cli.model.batches.batching import choose_batching, proof_examples
from convo_cli.model.batches.loss import nll_sum, pack, pad, plain_nll_sum
from convo_cli.model.create import save_memory, use_fast_activations
from convo_cli.tokens.store import ASSISTANT_TARGET, NO_TARGET, USER_TARGET, Example
from tests.cases import num_examples
from tests.stores import laid_out

VOCABULARY, PAD = 50, 0
KINDS = {ASSISTANT_TARGET, USER_TARGET}
_SIZE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": PAD,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CONFIGS = {
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=4, eos_token_id=2
    ),
    "llama": LlamaConfig(**_SIZE, num_key_value_heads=2),
    "qwen2": Qwen2Config(**_SIZE, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**_SIZE, num_key_value_heads=1, head_dim=8),
    "gpt-neox": GPTNeoXConfig(**_SIZE),
    "phi": PhiConfig(**_SIZE),
}
"""Learned positions, tied embeddings, rotary positions, grouped heads, a wide head, a bias."""


def make_model(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).double().eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    # Far from the flat start, where every context looks the same.
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def examples(lengths, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for length in lengths:
        targets = rng.choice([NO_TARGET, ASSISTANT_TARGET, USER_TARGET], length).astype(np.uint8)
        targets[0] = NO_TARGET
        made.append(Example(rng.integers(3, VOCABULARY, length).astype(np.int32), targets))
    return made


def gradient(model, batches, loss):
    model.zero_grad(set_to_none=True)
    total = sum(float(_backward(loss(model, batch))) for batch in batches)
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    return total, torch.cat([parameter.grad.flatten() for parameter in parameters])


def _backward(nll):
    nll.backward()
    return nll.detach()


def same(one, other, tolerance=1e-5):
    loss_is_same = abs(one[0] - other[0]) <= tolerance * abs(other[0])
    return loss_is_same and (one[1] - other[1]).norm() <= tolerance * other[1].norm()


@pytest.fixture(scope="module")
def models():
    """Each shape twice: with transformers' own attention, and with ours."""
    pairs = {}
    for name, config in CONFIGS.items():
        packed = make_model(config)
        use_packed_attention(packed)
        pairs[name] = (make_model(config), packed)
    return pairs


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=num_examples(15), deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_pack_has_the_loss_and_gradient_of_its_dialogues_one_at_a_time(
    models, name, lengths, seed
):
    plain, packed = models[name]
    some = examples([*lengths, 5], seed)
    alone = gradient(plain, [pad([one], KINDS, PAD) for one in some], plain_nll_sum)
    assert same(gradient(packed, [pack(some, KINDS)], nll_sum), alone)
    assert same(gradient(packed, [pack(some, KINDS)], plain_nll_sum), alone)
    assert same(gradient(plain, [pad(some, KINDS, PAD)], nll_sum), alone)


@pytest.mark.parametrize("name", CONFIGS)
def test_without_segments_it_is_the_models_own_attention(models, name):
    plain, packed = models[name]
    ids = torch.randint(3, VOCABULARY, (2, 12))
    torch.testing.assert_close(packed(ids).logits, plain(ids).logits)
    generated = [
        model.generate(
            ids[:1], max_new_tokens=8, do_sample=False, attention_mask=torch.ones_like(ids[:1])
        ).tolist()
        for model in (plain, packed)
    ]
    assert generated[0] == generated[1]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_gradient_checkpointing_computes_the_same(models, name):
    packed = models[name][1]
    some = examples([3, 9, 9, 14])
    expected = gradient(packed, [pack(some, KINDS)], nll_sum)
    save_memory(packed)
    packed.train()
    try:
        assert same(gradient(packed, [pack(some, KINDS)], nll_sum), expected)
    finally:
        packed.eval()  # checkpointing is for training only


@pytest.mark.parametrize("name", ["gpt2", "gpt-neox"])
def test_the_fast_and_the_slow_path_of_lengths_agree(models, name):
    """Neighbours of one length share a call; in another order every dialogue has its own."""
    packed = models[name][1]
    some = examples([7, 7, 7, 4, 4])
    apart = [some[k] for k in (0, 3, 1, 4, 2)]
    assert same(
        gradient(packed, [pack(some, KINDS)], nll_sum),
        gradient(packed, [pack(apart, KINDS)], nll_sum),
    )


# The proof


def choose(
    model, packing="auto", emit=lambda event: None, lengths=(12, 4, 9, 30, 4), *, is_trained=True
):
    store = laid_out(examples(lengths))
    return choose_batching(
        model, proof_examples(store, KINDS), KINDS,
        packing=packing, pad_id=PAD, autocast=nullcontext, emit=emit, is_trained=is_trained,
    )  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_every_shape_that_can_be_packed_is(name):
    events = []
    batching = choose(make_model(CONFIGS[name]).float(), emit=events.append)
    assert (batching.is_packed, batching.has_plain_head) == (True, True)
    assert batching.attention == "one example length at a time"
    how = "packed without padding (checked: same loss and gradient as one dialogue at a time)"
    assert [event.message for event in events] == [f"batching: dialogues are {how}"]


CANNOT = {
    "mistral": (MistralConfig(**_SIZE, num_key_value_heads=2, sliding_window=4), "sliding"),
    "bloom": (
        BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
        "cannot replace the attention",
    ),
    "gemma2": (
        Gemma2Config(**_SIZE, num_key_value_heads=2, head_dim=8, sliding_window=8),
        "sliding_attention",
    ),
}


@pytest.mark.parametrize("name", CANNOT)
def test_a_model_that_cannot_is_padded_with_the_reason_and_computes_what_it_always_did(name):
    config, reason = CANNOT[name]
    model, events = make_model(config).float(), []
    some = examples([3, 9, 14])
    expected = gradient(
        make_model(config).float(), [pad([one], KINDS, PAD) for one in some], plain_nll_sum
    )
    batching = choose(model, emit=events.append)
    assert not batching.is_packed
    assert reason in events[-1].message
    assert all(isinstance(event, Notice) for event in events)
    assert same(gradient(model, [batching.batch(some, KINDS)], batching.nll_sum), expected, 1e-4)
    with pytest.raises(ModelError, match=r"training\.packing is on, but") as caught:
        choose(make_model(config).float(), "on")
    assert caught.value.exit_code == 2


def test_logits_that_are_more_than_a_product_are_computed_whole():
    config = CohereConfig(**_SIZE, num_key_value_heads=2, logit_scale=0.25)
    events = []
    batching = choose(make_model(config).float(), emit=events.append)
    assert (batching.is_packed, batching.has_plain_head) == (True, False)
    assert "CohereForCausalLM allows no other way" in events[0].message


def test_packing_can_be_switched_off():
    events = []
    assert not choose(make_model(CONFIGS["gpt2"]), "off", events.append).is_packed
    assert "training.packing is off" in events[-1].message


@pytest.mark.parametrize("is_trained", [True, False])
@pytest.mark.parametrize("lengths", [(12, 4, 9, 30, 4), (60,), (60, 60, 60), (9, 60)])
def test_a_model_that_lets_dialogues_see_each_other_is_padded(monkeypatch, lengths, is_trained):
    """What the proof is for: attention that silently ignores where a dialogue begins."""
    honest = attention.packed_attention
    monkeypatch.setattr(
        attention,
        "packed_attention",
        lambda *args, segments=None, **kwargs: honest(*args, **kwargs),
    )
    events = []
    monkeypatch.setattr(module, "_LONGEST_PROOF", 32)
    chosen = choose(
        make_model(CONFIGS["llama"]).float(), "auto", events.append, lengths, is_trained=is_trained
    )
    assert not chosen.is_packed
    assert "one dialogue at a time" in events[-1].message


def test_the_proof_leaves_no_gradient_and_touches_no_random_state():
    model = make_model(CONFIGS["gpt2"]).float()
    before = torch.get_rng_state()
    choose(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_fast", "gelu_accurate"])
def test_fast_activations_are_the_same_function(activation):
    config = GPT2Config(**{**CONFIGS["gpt2"].to_dict(), "activation_function": activation})
    some = examples([5, 9])
    expected = gradient(make_model(config), [pad(some, KINDS, PAD)], nll_sum)
    model = make_model(config)
    assert use_fast_activations(model) == config.n_layer
    assert same(gradient(model, [pad(some, KINDS, PAD)], nll_sum), expected)
    assert model.config.activation_function == activation


def test_there_is_no_reason_against_packing_models_that_can_be_packed():
    assert all(why_not_packed(make_model(config)) is None for config in CONFIGS.values())
