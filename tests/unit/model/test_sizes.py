"""Sizes in config.json are compared with the weights first; every real kind of folder passes."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from convo_cli.errors import ModelError
from convo_cli.model import sizes
from convo_cli.model.loading import load_model
from convo_cli.model.sizes import read_shapes, require_sizes
from tests.foreign import SIZE, byte_pairs, fast, save_foreign
from tests.hostile_folders import change, harmless

GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
KINDS = {
    "gpt2": GPT2, "llama": SIZE, "qwen2": SIZE, "gpt_neox": SIZE,
    "opt": {**SIZE, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "gemma": {**SIZE, "num_key_value_heads": 1, "head_dim": 16},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "mixtral": {**SIZE, "num_key_value_heads": 1, "num_local_experts": 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return fast(byte_pairs(), eos_token="<|endoftext|>")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_passes(tmp_path, tokenizer, kind, monkeypatch):
    monkeypatch.setattr(sizes, "_SLACK", 0)
    require_sizes(save_foreign(tmp_path, kind, tokenizer, KINDS[kind]), "model")


@pytest.mark.parametrize("form", ["without prefix", "untied", "fp16", "sharded"])
def test_every_form_of_weights_passes(tmp_path, tokenizer, form, monkeypatch):
    monkeypatch.setattr(sizes, "_SLACK", 0)
    save_foreign(tmp_path, "gpt2", tokenizer, GPT2)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    assert "lm_head.weight" not in tensors, "it is tied"
    if form == "without prefix":
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    if form == "untied":
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
        change(tmp_path / "config.json", tie_word_embeddings=False)
    if form == "fp16":
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    if form == "sharded":
        file.unlink()
        names = sorted(tensors)
        shards = {
            "model-00001-of-00002.safetensors": names[::2],
            "model-00002-of-00002.safetensors": names[1::2],
        }
        for shard, inside in shards.items():
            save_file({name: tensors[name] for name in inside}, tmp_path / shard, {"format": "pt"})
        index = {
            "metadata": {},
            "weight_map": {name: shard for shard, inside in shards.items() for name in inside},
        }
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file(tensors, file, {"format": "pt"})
    require_sizes(tmp_path, "model")
    assert load_model(str(tmp_path)).dtype == torch.float32


@pytest.fixture
def model(tmp_path):
    return harmless(tmp_path / "model")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"vocab_size": 10**8},
            r"3,200,\d+,\d+ parameters, but the weights contain 26,944; .* 100000000 x 32 by",
        ),
        (
            {"n_positions": 10**8},
            r"wpe.weight has the shape 100000000 x 32 by config.json and 128 x 32 in the weights",
        ),
        ({"n_layer": 17}, "n_layer is 17 in config.json, but the weights have 16 tensors"),
        (
            {"text_config": {"num_hidden_layers": 10**12}},
            "num_hidden_layers is 1,000,000,000,000 in config.json",
        ),
        (
            {"num_labels": 10**12},
            "its config.json (takes more than .* of memory|takes more than .* CPU)",
        ),
    ],
)
def test_what_the_weights_cannot_fill_is_refused_with_both_values(model, values, says):
    change(model / "config.json", **values)
    with pytest.raises(ModelError, match=says):
        require_sizes(model, "model")


def test_tables_that_are_computed_are_bounded_too(tmp_path, tokenizer):
    size = {"n_embd": 32, "n_layer": 1, "n_head": 2, "dff": 8, "n_positions": 64}
    save_foreign(tmp_path, "ctrl", tokenizer, size)
    require_sizes(tmp_path, "model")
    change(tmp_path / "config.json", n_positions=10**7)
    with pytest.raises(ModelError, match="needs 1,280,000,000 bytes of tables beside its weights"):
        require_sizes(tmp_path, "model")


def test_parts_without_numbers_are_counted_while_they_are_made():
    with pytest.raises(sizes.TooManyError), sizes._counting(100):
        torch.nn.ModuleList(torch.nn.Identity() for _ in range(10**9))
    with sizes._counting(100):
        torch.nn.Linear(1, 1)
    torch.nn.ModuleList(torch.nn.Identity() for _ in range(200))


def test_a_header_as_long_as_a_book_is_not_read(model):
    shutil.copyfile(model / "model.safetensors", model / "copy")
    (model / "model.safetensors").write_bytes((2**26).to_bytes(8, "little") + b" " * 100)
    with pytest.raises(ModelError, match="the header would be 67,108,864 bytes"):
        read_shapes(model)
    shutil.move(model / "copy", model / "model.safetensors")
    assert len(read_shapes(model)) == 16


@pytest.mark.parametrize("kind", ["vit", "clip"])
def test_a_model_of_another_kind_is_refused_by_its_model_type(model, kind):
    change(model / "config.json", model_type=kind)
    with pytest.raises(ModelError) as caught:
        require_sizes(model, "m")
    assert caught.value.message == (
        f"m: not a causal language model (model_type {kind} in config.json)"
    )
    assert caught.value.hint == "use a decoder model, such as GPT-2 or Llama"


@pytest.mark.parametrize("kind", ["t5", "bart", "whisper"])
def test_an_encoder_decoder_is_named_even_if_config_json_does_not_say_so(model, kind):
    change(model / "config.json", model_type=kind)
    with pytest.raises(ModelError, match=rf"m: an encoder-decoder model \(model_type {kind} in"):
        require_sizes(model, "m")


def test_a_type_that_transformers_does_not_know_is_named(model):
    change(model / "config.json", model_type="gpt9")
    with pytest.raises(ModelError, match='does not know models of type "gpt9"'):
        require_sizes(model, "m")
    change(model / "config.json", auto_map={"AutoModel": "modeling.Model"})
    with pytest.raises(ModelError, match='"gpt9", which needs the Python code of its author'):
        require_sizes(model, "m")


def test_a_missing_file_of_the_index_is_named(model):
    weights = model / "model.safetensors"
    weights.rename(model / "one.safetensors")
    weight_map = {"a": "one.safetensors", "b": "two.safetensors"}
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelError, match=r"two\.safetensors: not found, but model\.safetensors\."):
        read_shapes(model)


def test_a_file_that_the_index_does_not_name_is_not_read(model):
    weights = model / "model.safetensors"
    weights.rename(model / "one.safetensors")
    (model / "other.safetensors").write_text("not tensors")
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    assert read_shapes(model)
