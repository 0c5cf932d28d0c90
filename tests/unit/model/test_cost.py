"""Operations counted from the model and the batch, against torch's own count of what ran."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from convo_cli.model.batches.attention import use_packed_attention
from convo_cli.model.batches.loss import nll_sum, pack, pad
from convo_cli.model.cost import FlopCounter, peak_flops
from convo_cli.tokens.store import Example

CONFIGS = {
    "gpt2": GPT2Config(vocab_size=97, n_positions=64, n_embd=32, n_layer=2, n_head=4),
    "llama": LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
    ),
}


def examples(*lengths):
    return [Example(np.full(length, 3, np.int32), np.ones(length, np.uint8)) for length in lengths]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_count_is_that_of_the_matrix_products_that_run(name):
    """torch counts neither attention nor the product for the vocabulary matrix's gradient."""
    model = AutoModelForCausalLM.from_config(CONFIGS[name])
    use_packed_attention(model)
    batch = pack(examples(40, 40), {1})
    with FlopCounterMode(display=False) as mode:
        nll_sum(model, batch).backward()
    uncounted = 2 * model.lm_head.weight.numel() * batch.num_targets
    attention = 6 * model.config.num_hidden_layers * model.config.hidden_size * 2 * 40**2
    assert mode.get_total_flops() + uncounted == pytest.approx(
        FlopCounter(model)(batch), abs=1.01 * attention
    )


def test_padding_and_tokens_that_are_no_targets_do_not_count():
    model = AutoModelForCausalLM.from_config(CONFIGS["gpt2"])
    count = FlopCounter(model)
    some = examples(9, 30)
    assert count(pad(some, {1}, 0)) == count(pack(some, {1})) > count(pack(some, ()))
    assert count(pack(some, ())) - count(pack(examples(9), ())) == pytest.approx(
        count(pack(examples(30), ()))
    )


def test_a_cpu_has_no_known_peak():
    assert peak_flops(torch.device("cpu"), "bf16") is None
