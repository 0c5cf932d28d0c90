"""Dropout is found in every form: a module, a number in the config, layers that are skipped."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from convo_cli.model.device import has_drawn_random_numbers

CPU = torch.device("cpu")
GPT2 = {"n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": 16, "n_positions": 8}
GPT2_OFF = {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0}
SIZE = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "vocab_size": 16}
LLAMA = {**SIZE, "intermediate_size": 16, "num_key_value_heads": 2}
OPT = {**SIZE, "ffn_dim": 16, "word_embed_proj_dim": 8, "max_position_embeddings": 8}
OPT_OFF = {"dropout": 0.0, "attention_dropout": 0.0, "layerdrop": 0.0}
FALCON = {**SIZE, "hidden_dropout": 0.0, "attention_dropout": 0.0}


@pytest.mark.parametrize(
    ("family", "values", "has_dropout"),
    [
        ("gpt2", GPT2 | GPT2_OFF, False),  # its summary_first_dropout of 0.1 is that of no layer
        *[("gpt2", GPT2 | GPT2_OFF | {name: 0.5}, True) for name in GPT2_OFF],
        ("llama", LLAMA, False),
        ("llama", LLAMA | {"attention_dropout": 0.5}, True),
        ("opt", OPT | OPT_OFF, False),
        ("opt", OPT | OPT_OFF | {"layerdrop": 0.5}, True),
        ("falcon", FALCON, False),
        ("falcon", FALCON | {"hidden_dropout": 0.5}, True),
    ],
)
def test_a_pass_draws_random_numbers_only_with_dropout(family, values, has_dropout):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **values)).train()
    torch.manual_seed(7)
    model(input_ids=torch.arange(6)[None]).logits.sum().backward()
    assert has_drawn_random_numbers(CPU, 7) == has_dropout
