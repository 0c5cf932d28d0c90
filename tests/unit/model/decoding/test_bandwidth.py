"""The measured bandwidth of the memory, and the weights that a token reads."""

from __future__ import annotations

import time

import pytest
import torch

from convo_cli.model.decoding.bandwidth import read_bandwidth, weight_bytes
from tests.laws.test_decoding import FAMILIES, build


def test_the_bandwidth_is_measured_once_and_plausible():
    first = read_bandwidth(torch.device("cpu"))
    assert 1e8 < first < 1e13
    started = time.perf_counter()
    assert read_bandwidth(torch.device("cpu")) == first
    assert time.perf_counter() - started < 0.01


@pytest.mark.parametrize("kind", ["GPT-2", "Llama"])
@pytest.mark.parametrize("is_tied", [False, True])
def test_a_token_reads_each_weight_once_and_only_a_row_of_the_embeddings(kind, is_tied):
    vocab_size, width = 300, 32
    model = build(*FAMILIES[kind], vocab_size)
    head = vocab_size * width
    others = sum(weight.numel() for weight in model.parameters()) - 2 * head
    if kind == "GPT-2":
        others -= 128 * width  # positions
    assert weight_bytes(model) == 4 * (others + head)
    if is_tied:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
        assert weight_bytes(model) == 4 * (others + head)
    assert weight_bytes(model.half()) == 2 * (others + head)


def test_a_model_without_a_head_reads_all_but_its_embeddings():
    model = build(*FAMILIES["Llama"], 300)
    with_head = weight_bytes(model)
    assert weight_bytes(model.model) == with_head - 4 * 300 * 32
