"""What a GGUF file states besides tensors and tokens, and what is refused before it is written."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from convo_cli.errors import DiskError, ModelError
from convo_cli.export.llama_cpp import gguf_format
from convo_cli.storage.atomic import publish_directory
from convo_cli.text.contract import load_encoder
from tests.full_disk import file_size_limit
from tests.gguf_models import model_of, values_of, written
from tests.random_models import FAMILIES, ROPE

pytest.importorskip("gguf", reason="the gguf package is not installed")
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def encoder(encoders):
    return encoders["byte-level bpe"]


def test_the_metadata_name_the_tokens_of_the_dialogue(encoder, tmp_path):
    model = model_of(*FAMILIES["GPT-2"], encoder)
    values = values_of(written(tmp_path, model, encoder))
    (stop,) = encoder.stop_ids
    for name in ("eos", "eot", "bos", "padding"):
        assert values[f"tokenizer.ggml.{name}_token_id"] == stop
    assert values["tokenizer.ggml.add_bos_token"] is False
    assert values["tokenizer.ggml.add_eos_token"] is False
    assert values["tokenizer.ggml.add_space_prefix"] is False
    assert values["tokenizer.chat_template"] == encoder.template.chat_template
    assert values["gpt2.context_length"] == 128


def test_two_stop_tokens_are_stated_and_the_fourth_is_named(encoder, tmp_path):
    model = model_of(*FAMILIES["GPT-2"], encoder)
    stop = encoder.stop_ids[0]
    notices = []
    with patch.object(encoder, "stop_ids", (7, stop, 8, 9)):
        values = values_of(written(tmp_path, model, encoder, emit=notices.append))
    stated = [values[f"tokenizer.ggml.{name}_token_id"] for name in ("eos", "eot", "eom")]
    assert stated == [stop, 7, 8]
    (notice,) = notices
    assert notice.message.endswith(f"stop tokens: {encoder.tokenizer.convert_ids_to_tokens(9)}")


def test_the_metadata_name_no_person_machine_or_path(encoder, tmp_path):
    model = model_of(*FAMILIES["Llama"], encoder)
    model.config._name_or_path = str(tmp_path)
    file = written(tmp_path, model, encoder)
    content = file.read_bytes()
    for name in (str(Path.home()), str(tmp_path)):
        assert name.encode() not in content
    general = {
        name
        for name in values_of(file)
        if name.startswith("general.") and not name.startswith("general.sampling.")
    }
    assert general == {"general.architecture", "general.type", "general.file_type"}


def test_the_folder_holds_the_contract(encoder, tmp_path, make_encoder):
    written(tmp_path, model_of(*FAMILIES["GPT-2"], encoder), encoder)
    encoder.tokenizer.save_pretrained(tmp_path)
    assert load_encoder(tmp_path).stop_ids == encoder.stop_ids


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_file_has_the_mode_of_the_mask(encoder, tmp_path, mask):
    before = os.umask(mask)
    try:
        file = written(tmp_path, model_of(*FAMILIES["GPT-2"], encoder), encoder)
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_full_disk_is_an_error_of_the_disk_and_leaves_nothing(encoder, tmp_path):
    model = model_of(*FAMILIES["Llama"], encoder)
    out = tmp_path / "out"
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(DiskError, match="File too large"), file_size_limit(100_000):
            publish_directory(out, lambda folder: written(folder, model, encoder))
    finally:
        signal.signal(signal.SIGXFSZ, before)
    assert not list(tmp_path.iterdir())


def test_a_window_of_attention_limits_the_context(encoder, tmp_path):
    kind, options = "Mistral", {**ROPE, "max_position_embeddings": 512, "sliding_window": 128}
    model = model_of(kind, options, encoder)
    assert values_of(written(tmp_path, model, encoder))["llama.context_length"] == 128


def test_training_beyond_the_window_of_attention_is_refused(encoder, tmp_path):
    model = model_of("Mistral", {**ROPE, "sliding_window": 127}, encoder)
    with pytest.raises(ModelError, match="attends to the last 127 tokens, but was trained on"):
        written(tmp_path, model, encoder)


@pytest.mark.parametrize(
    "config",
    [
        {"rope_theta": 5e5, "rope_scaling": {**LLAMA3, "type": "llama3"}},
        {"rope_parameters": LLAMA3},
        {"rope_theta": 1e4, "rope_scaling": None},
        {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}},
    ],
)
def test_positions_in_both_forms_of_a_config_are_accepted(config):
    assert gguf_format.objection({"model_type": "llama", "hidden_act": "silu", **config}) is None


REFUSED: dict[str, dict[str, Any]] = {
    "dynamic": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
    "longrope": {"rope_scaling": {"type": "longrope", "long_factor": [1.0]}},
    "rope_theta of its rotary positions is inf": {"rope_theta": float("inf")},
    "rope_theta of its rotary positions is 1000000": {"rope_theta": 10**400},
    "rope_theta of its rotary positions is 10000, not": {"rope_theta": "10000"},
    "rope_theta of its rotary positions is True": {"rope_theta": True},
    "factor of its rotary positions is 8.0, not a": {
        "rope_scaling": {"type": "linear", "factor": "8.0"}
    },
    "factor of its rotary positions is 0": {"rope_scaling": {"type": "yarn", "factor": 0}},
    "factor of its rotary positions is nan": {"rope_scaling": {**LLAMA3, "factor": float("nan")}},
    "not below high_freq_factor": {"rope_scaling": {**LLAMA3, "low_freq_factor": 4.0}},
    "lack factor": {"rope_scaling": {"type": "linear"}},
    "lack high_freq_factor": {
        "rope_scaling": {key: LLAMA3[key] for key in LLAMA3 if key != "high_freq_factor"}
    },
    "cannot write: mscale": {"rope_scaling": {"type": "yarn", "factor": 2.0, "mscale": 1.0}},
    "different ways": {"rope_parameters": {"full_attention": {}, "sliding_attention": {}}},
    "a part of each head": {"partial_rotary_factor": 0.5},
    "hidden_act is gelu": {"hidden_act": "gelu"},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_settings_that_llama_cpp_computes_differently_are_refused(reason):
    config: dict[str, Any] = {"model_type": "llama", "rope_theta": 1e4}
    assert gguf_format.objection(config) is None
    assert reason in str(gguf_format.objection(config | REFUSED[reason]))


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gpt2", "activation_function": "relu"},
        {"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True},
        {"model_type": "qwen3", "attention_bias": True},
        {"model_type": "gemma", "tie_word_embeddings": False},
        {"model_type": "gemma2", "query_pre_attn_scalar": 144, "head_dim": 128},
        {"model_type": "gemma2", "num_hidden_layers": 46},
        {"model_type": "gemma2", "layer_types": ["full_attention"]},
        {"model_type": "smollm3", "no_rope_layers": [1, 0, 1, 0]},
        {"model_type": "smollm3", "no_rope_layer_interval": 3},
        {"model_type": "stablelm", "qk_layernorm": True},
        {"model_type": "starcoder2", "use_bias": False},
    ],
    ids=lambda config: "-".join(map(str, config.values())),
)
def test_variants_of_families_that_llama_cpp_does_not_compute_are_refused(config):
    assert gguf_format.objection({"model_type": config["model_type"]}) is None
    assert gguf_format.objection(config) is not None


def test_a_refused_config_is_refused_while_writing_too(encoder, tmp_path):
    model = model_of("Llama", {**ROPE, "hidden_act": "gelu"}, encoder)
    with pytest.raises(ModelError, match="hidden_act is gelu, but llama"):
        written(tmp_path, model, encoder)
    assert not list(tmp_path.iterdir())


def test_the_page_names_every_model_type():
    page = (Path(__file__).parents[4] / "docs" / "exports.md").read_text(encoding="utf-8")
    sentence = page.split("### Models and tokenizers")[1].split(". For each")[0]
    named = re.findall(r"`(\w+)`", sentence)
    assert set(named) - {"model_type"} == gguf_format.about().architectures
