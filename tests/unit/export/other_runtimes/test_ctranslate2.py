"""CTranslate2: every listed architecture and setting replies like torch, or is refused."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convo_cli.data.dialogue import Turn
from convo_cli.errors import ModelError
from convo_cli.export.other_runtimes import ctranslate2_format
from tests.exported_models import (
    differences,
    greedy_by_torch,
    nll_by_torch,
    opened,
    program_of_docs,
    source_of,
)
from tests.random_models import ROPE
from tests.slow_tokenizers import HARD

pytest.importorskip("ctranslate2")

GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
SCALED = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32, "rope_theta": 300.0,
}  # fmt: skip
THETA = {"rope_type": "default", "rope_theta": 300.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", GPT2),
    "gpt2, another epsilon": ("GPT2", {**GPT2, "layer_norm_epsilon": 0.3}),
    "gpt2, relu": ("GPT2", {**GPT2, "activation_function": "relu"}),
    "llama": ("Llama", {**ROPE, "attention_bias": True, "mlp_bias": True, "rms_norm_eps": 0.3}),
    "llama, another base": ("Llama", {**ROPE, "rope_parameters": THETA}),
    "llama, linear": (
        "Llama",
        {**ROPE, "rope_parameters": {**THETA, "rope_type": "linear", "factor": 4.0}},
    ),
    "llama, as Llama 3": ("Llama", {**ROPE, "rope_parameters": SCALED}),
    "llama, wide heads": ("Llama", {**ROPE, "head_dim": 16}),
    "mistral": ("Mistral", {**ROPE, "sliding_window": None, "head_dim": 16}),
    "mistral, a wide window": ("Mistral", {**ROPE, "sliding_window": 128}),
    "qwen2": ("Qwen2", {**ROPE, "rope_parameters": THETA}),
    "qwen3": ("Qwen3", {**ROPE, "head_dim": 16, "rope_parameters": THETA}),
    "gemma": ("Gemma", {**ROPE, "head_dim": 8, "rope_parameters": THETA}),
    "gptj": ("GPTJ", {**GPT2, "rotary_dim": 4}),
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
}
GAPS = ("gpt2, another epsilon", "llama, as Llama 3", "llama, wide heads", "gemma")


@pytest.fixture(scope="module")
def byte_level(kinds):
    return kinds["byte-level"]


@pytest.fixture(scope="module")
def gpt2(byte_level, tmp_path_factory):
    """A source, its runtime and its folder."""
    folder = tmp_path_factory.mktemp("gpt2")
    source = source_of(folder / "source", MODELS["gpt2"], byte_level)
    return source, opened(ctranslate2_format, source, folder / "out"), folder / "out"


QUICK = ("llama, as Llama 3", "mistral, a wide window")


@pytest.mark.parametrize(
    "name",
    [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name not in QUICK)],
)
def test_replies_and_losses_equal_those_of_torch(name, byte_level, tmp_path):
    source = source_of(tmp_path / "source", MODELS[name], byte_level)
    runtime = opened(ctranslate2_format, source, tmp_path / "out")
    assert differences(runtime, source) == []


def test_a_model_of_gpt2_replies_like_torch(gpt2):
    source, runtime, _ = gpt2
    assert differences(runtime, source) == []


def test_every_listed_architecture_is_compared():
    compared = {name.split(",")[0] for name in MODELS}
    assert compared == ctranslate2_format.about().architectures


@pytest.mark.slow
@pytest.mark.parametrize("name", GAPS)
def test_the_converter_alone_writes_another_model(name, byte_level, tmp_path, monkeypatch):
    """If this fails, a newer converter closed the gap."""
    monkeypatch.setattr(ctranslate2_format, "_complete", lambda spec, config: None)
    source = source_of(tmp_path / "source", MODELS[name], byte_level)
    try:
        runtime = opened(ctranslate2_format, source, tmp_path / "out")
        found = differences(runtime, source, [9])
    except ValueError as error:
        found = [str(error)]
    assert found


def test_a_sliding_window_shorter_than_the_dialogues_is_refused(byte_level, tmp_path):
    source = source_of(
        tmp_path / "source", ("Mistral", {**ROPE, "sliding_window": 127}), byte_level
    )
    with pytest.raises(ModelError, match="sliding window of 127 tokens is shorter than its dialog"):
        opened(ctranslate2_format, source, tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "gpt2", "scale_attn_weights": False}, "scale_attn_weights is false"),
        ({"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True}, "layer_idx is true"),
        ({"model_type": "llama", "hidden_act": "gelu"}, "hidden_act is gelu"),
        ({"model_type": "llama", "rope_parameters": {"rope_type": "yarn"}}, "the form yarn"),
        ({"model_type": "qwen2", "rope_scaling": {"type": "dynamic"}}, "the form dynamic"),
        ({"model_type": "gemma", "rope_scaling": {"rope_type": "linear"}}, "the form linear"),
        ({"model_type": "gemma", "hidden_act": "gelu"}, "hidden_act is gelu"),
    ],
)
def test_settings_that_the_format_cannot_hold_are_named(config, reason):
    assert reason in ctranslate2_format.about().objection(config)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gpt2"}, {"model_type": "llama", "hidden_act": "silu"},
        {"model_type": "llama", "rope_scaling": None}, {"model_type": "gptj"},
        {"model_type": "llama", "rope_parameters": SCALED},
        {"model_type": "llama", "rope_scaling": "text", "rope_theta": 5},
    ],
    ids=str,
)  # fmt: skip
def test_other_settings_are_not_refused(config):
    assert ctranslate2_format.about().objection(config) is None


@pytest.mark.parametrize("kind", ["byte-level", "bpe", "unigram"])
def test_texts_prompts_and_replies_of_every_kind_of_tokenizer(kind, kinds, tmp_path):
    encoder = kinds[kind]
    source = source_of(tmp_path / "source", MODELS["gpt2"], encoder)
    runtime = opened(ctranslate2_format, source, tmp_path / "out")
    for text in HARD:
        expected = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert runtime.text_ids(text) == expected
        turns = (Turn("user", f"Hi{text}".strip()),)
        prompt = list(encoder.prompt(turns, max_new_tokens=8).ids)
        assert runtime.prompt_ids([{"role": "user", "content": turns[0].text}]) == prompt
    assert differences(runtime, source, [9]) == []


def test_rows_without_a_token_and_tokens_with_odd_names_keep_their_ids(gpt2):
    source, runtime, out = gpt2
    tokens = json.loads((out / "vocabulary.json").read_text())
    tokenizer = source.generator.encoder.tokenizer
    assert len(set(tokens)) == len(tokens) == len(tokenizer) + 5
    for token in ("line\nbreak", "<|row 520|>"):
        assert tokens.index(token) == tokenizer.convert_tokens_to_ids(token)
    last = [len(tokens) - 1, len(tokens) - 2]
    assert runtime.nll(last, 1) == pytest.approx(nll_by_torch(source.generator.model, last, 1))


def test_a_long_input_is_not_cut(byte_level, tmp_path):
    options = {**GPT2, "n_positions": 1100, "n_layer": 1, "n_embd": 8, "n_head": 1}
    source = source_of(tmp_path / "source", ("GPT2", options), byte_level)
    runtime = opened(ctranslate2_format, source, tmp_path / "out")
    ids = np.random.default_rng(0).integers(3, 400, 1090).tolist()
    expected = nll_by_torch(source.generator.model, ids, 1080)
    assert runtime.nll(ids, 1080) == pytest.approx(expected, abs=1e-4)


def test_smaller_types_are_smaller_and_close(byte_level, tmp_path):
    family = ("GPT2", {**GPT2, "n_embd": 64})
    source = source_of(tmp_path / "source", family, byte_level)
    with torch.no_grad():
        for weight in source.generator.model.parameters():
            weight.mul_(0.5)  # near those of a trained model
    ids = np.random.default_rng(0).integers(3, 400, 60).tolist()
    expected = np.mean(nll_by_torch(source.generator.model, ids, 1))
    sizes = {}
    for dtype in ctranslate2_format.about().dtypes:
        runtime = opened(ctranslate2_format, source, tmp_path / dtype, dtype)
        assert np.mean(runtime.nll(ids, 1)) == pytest.approx(expected, abs=0.1)
        sizes[dtype] = (tmp_path / dtype / "model.bin").stat().st_size
    assert sizes["fp32"] > 1.9 * sizes["fp16"]
    assert sizes["fp16"] == sizes["bf16"] > 1.5 * sizes["int8"]


def test_the_conversion_is_silent_and_leaves_the_model_as_it_was(byte_level, tmp_path, capfd):
    source = source_of(tmp_path / "source", MODELS["llama"], byte_level)
    before = {name: one.clone() for name, one in source.generator.model.state_dict().items()}
    capfd.readouterr()
    opened(ctranslate2_format, source, tmp_path / "out", "fp16")
    assert capfd.readouterr() == ("", "")
    after = source.generator.model.state_dict()
    assert before.keys() == after.keys()
    assert all(after[name].equal(before[name]) for name in before)


def test_the_folder_holds_what_a_program_needs_and_nothing_of_this_machine(gpt2):
    _, _, out = gpt2
    assert sorted(path.name for path in out.iterdir()) == [
        "chat_template.jinja", "config.json", "dialogue.json", "generation_config.json",
        "model.bin", "tokenizer.json", "tokenizer_config.json", "vocabulary.json",
    ]  # fmt: skip
    umask = os.umask(0)
    os.umask(umask)
    for path in out.iterdir():
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask
        content = path.read_bytes()
        for name in (str(Path.home()), str(Path.cwd()), str(out), "site-packages", sys.prefix):
            assert name.encode() not in content


def test_the_program_of_the_docs_replies_like_the_checkpoint(gpt2, capsys):
    source, runtime, out = gpt2
    encoder = source.generator.encoder
    program = program_of_docs("ctranslate2", ctranslate2_format.about())
    exec(program.replace("path/to/this/folder", str(out)), {})
    ids = runtime.prompt_ids([{"role": "user", "content": "Hello!"}])
    reply = greedy_by_torch(source.generator.model, ids, 64, encoder.stop_ids)
    expected = encoder.tokenizer.decode(reply, skip_special_tokens=True)
    assert capsys.readouterr().out == expected + "\n"
