"""No file of a model folder is code, a way to another file, or without end."""

from __future__ import annotations

import json
import os

import pytest

from convo_cli.errors import ModelError
from convo_cli.runs import foreign_files as module
from convo_cli.runs.foreign_files import require_harmless

INDEX = "model.safetensors.index.json"


def folder(tmp_path, **files):
    for name, content in {"config": {"model_type": "gpt2"}, **files}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def index(tmp_path, *names):
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {f"tensor {k}": name for k, name in enumerate(names)}}))
    return tmp_path


def test_an_ordinary_folder_is_harmless(tmp_path):
    folder(tmp_path, tokenizer={"model": {}}, config={"attn_implementation": "sdpa", "layers": [{"a": "x/y"}]})
    index(tmp_path, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "blob").write_bytes(b"{}")
    (tmp_path / "special_tokens_map.json").symlink_to("blob")  # as in the hub's cache
    require_harmless(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../../etc/x", "../other.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "model.bin", "model.pt", "", 7],
)
def test_an_index_names_safetensors_files_beside_it_and_nothing_else(tmp_path, name):
    index(folder(tmp_path), "model-00001-of-00002.safetensors", name)
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json: names .* which is no safetensors file"):
        require_harmless(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"attn_implementation": "somebody/kernel"},
        {"_attn_implementation": "somebody/kernel"},
        {"experts_implementation": "somebody/kernel@main"},
        {"text_config": {"attn_implementation": "somebody/kernel:f"}},
        {"sub": [{"attn_implementation": {"text_implementation": "somebody/kernel"}}]},
    ],
)
def test_a_config_names_no_code_on_a_hub(tmp_path, config):
    with pytest.raises(ModelError, match=r"config\.json: \w+ names 'somebody/kernel.*', which would be code"):
        require_harmless(folder(tmp_path, config=config))


def test_a_file_that_would_be_read_at_once_has_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_TEXT_BYTES", 1000)
    folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(bytes(2000))
    (tmp_path / "tokenizer.json").write_bytes(bytes(1000))
    require_harmless(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(bytes(1001))
    with pytest.raises(ModelError, match=r"tokenizer\.json: 1,001 bytes"):
        require_harmless(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(folder(tmp_path) / "tokenizer.json")
    with pytest.raises(ModelError, match=r"tokenizer\.json: not a regular file"):
        require_harmless(tmp_path)


def test_what_is_nested_without_end_is_refused_and_what_is_no_json_is_left_to_its_reader(tmp_path):
    (tmp_path / "config.json").write_text("{")
    (tmp_path / INDEX).write_text("[]")
    require_harmless(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match=r"config\.json: nested too deeply"):
        require_harmless(tmp_path)
