"""AdamW decays matrices only, and updates every parameter exactly once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from convo_cli.config.schema import TrainingConfig
from convo_cli.training.optim import make_optimizer

CONFIG = TrainingConfig(max_steps=1, learning_rate=1e-3, weight_decay=0.25, betas=(0.8, 0.99), epsilon=1e-6)


def gpt2(*, is_tied=True):
    from transformers import GPT2Config, GPT2LMHeadModel

    size: dict[str, Any] = {"vocab_size": 40, "n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**size, tie_word_embeddings=is_tied))


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=16, attention_bias=True,
        )
    )  # fmt: skip


def groups_by_name(model):
    """Whether each parameter is decayed, by its name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, kept = make_optimizer(model, CONFIG).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.25, 0.0)
    return [names[id(p)] for p in decayed["params"]], [names[id(p)] for p in kept["params"]]


@pytest.mark.parametrize("make", [gpt2, lambda: gpt2(is_tied=False), llama], ids=["gpt2", "untied gpt2", "llama"])
def test_every_parameter_is_in_exactly_one_group(make):
    model = make()
    decayed, kept = groups_by_name(model)
    assert sorted(decayed + kept) == sorted(name for name, _ in model.named_parameters())


def test_matrices_are_decayed_and_norms_biases_and_embeddings_are_not():
    decayed, kept = groups_by_name(gpt2())
    assert all(name.endswith("weight") and (".attn." in name or ".mlp." in name) for name in decayed)
    assert len(decayed) == 2 * 4
    assert {"transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight"} <= set(kept)
    assert all("wte" in name or "wpe" in name or "ln_" in name or name.endswith("bias") for name in kept)


def test_an_output_matrix_of_its_own_is_decayed_and_one_tied_to_the_embedding_is_not():
    assert "lm_head.weight" in groups_by_name(gpt2(is_tied=False))[0]
    assert not any("lm_head" in name for group in groups_by_name(gpt2()) for name in group)


def test_frozen_parameters_are_left_out():
    model = gpt2()
    model.transformer.wte.weight.requires_grad_(False)
    decayed, kept = groups_by_name(model)
    assert "transformer.wte.weight" not in decayed + kept


def test_the_configs_numbers_reach_the_optimizer():
    for group in make_optimizer(gpt2(), CONFIG).param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (1e-3, (0.8, 0.99), 1e-6)


def test_decay_shrinks_a_matrix_without_a_gradient_and_leaves_a_norm():
    model = gpt2()
    optimizer = make_optimizer(model, CONFIG)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    block = model.transformer.h[0]
    matrix, norm = block.mlp.c_fc.weight.detach().clone(), block.ln_1.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(block.mlp.c_fc.weight.detach(), matrix * (1 - 1e-3 * 0.25))
    assert torch.equal(block.ln_1.weight, norm)
