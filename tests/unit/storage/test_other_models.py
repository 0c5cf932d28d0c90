"""Models in other forms are named, with a way that leads to a folder that convo opens."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from convo_cli.errors import ModelError
from convo_cli.storage.other_models import require_no_other_form

GPT = {"model_type": "gpt2"}
GGUF = b"GGUF\3\0\0\0"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
LORA = {"peft_type": "LORA", "base_model_name_or_path": "somebody/small model"}
WEIGHTS: dict[str, Any] = {"model.safetensors": b""}


def write(folder: Path, files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    folder.mkdir(exist_ok=True)
    return folder


def quantized(**how):
    return {"config.json": {**GPT, "quantization_config": how}, **WEIGHTS}


@pytest.mark.parametrize(
    ("files", "says", "way"),
    [
        ({"adapter_config.json": LORA}, "an adapter of somebody/small model", "pip install peft"),
        ({"adapter_config.json": LORA, "config.json": GPT, **WEIGHTS}, "an adapter", "peft"),
        ({"adapter_config.json": {"peft_type": "PREFIX_TUNING"}}, "an adapter", "cannot be merged"),
        ({"adapter_config.json": b"nonsense"}, "an adapter, but", "pip install peft"),
        ({"a-Q4_K_M.gguf": GGUF}, "in a-Q4_K_M.gguf, a GGUF file", "pip install gguf"),
        ({"config.json": GPT, "b.gguf": GGUF, "a.gguf": GGUF}, "in a.gguf", "gguf"),
        ({"ggml-model.bin": b"lmgg"}, "a GGML file", "ask its publisher"),
        (quantized(quant_method="bitsandbytes", load_in_4bit=True), "4 bits, bits", "dequantize"),
        (quantized(quant_method="gptq", bits=4), r"\(4 bits, gptq; quantization_config", "from"),
        (quantized(quant_method="fp8"), r"\(fp8; quantization_config in config.json", "from"),
        ({"config.json": {**GPT, "quantization": {"bits": 8}}, **WEIGHTS}, "8 bits", "from"),
        (
            {"config.json": {**GPT, "text": {"quantization_config": {"bits": 3}}}, **WEIGHTS},
            "3 bits",
            "from",
        ),
        ({"config.json": GPT, "tf_model.h5": b""}, "the format of TensorFlow", "ask its publisher"),
        ({"config.json": GPT, "flax_model.msgpack": b""}, "the format of Flax", "ask"),
        ({"config.json": GPT, "onnx/model.onnx": b""}, "the format of ONNX", "ask"),
        ({"params.json": {}, "consolidated.00.pth": b"PK"}, "consolidated.00.pth", "ask"),
        ({"config.json": GPT, "model-00001-of-00002.safetensors": b""}, "index.json: not f", "all"),
        ({"config.json": GPT, "model.safetensors": POINTER}, "git-LFS pointer", "lfs pull"),
        ({"config.json": POINTER, **WEIGHTS}, "git-LFS pointer", "lfs pull"),
        ({"tokenizer.json": {}, "tokenizer_config.json": {}}, "a tokenizer without", "weights"),
        ({"model_index.json": {}}, "generates images", "decoder model"),
        ({"modules.json": []}, "computes embeddings", "decoder model"),
        ({}, "empty", "the folder of a model"),
        (
            {"checkpoint-9/config.json": GPT, "checkpoint-9/model.safetensors": b"",
             "checkpoint-10/config.json": GPT, "checkpoint-10/model.safetensors": b""},
            "not a model folder itself", "checkpoint-10",
        ),
        (
            {"snapshots/b/config.json": GPT, "snapshots/b/model.safetensors": b""},
            "not a model folder itself", "snapshots/b",
        ),
        (
            {"config.json": {"model_type": "t5", "is_encoder_decoder": True}, **WEIGHTS},
            r"an encoder-decoder model \(model_type t5 in config.json\)", "decoder model",
        ),
        (
            {"config.json": {**GPT, "architectures": ["GPT2ForSequenceClassification"]}, **WEIGHTS},
            "a classifier, a reward model or an encoder", "trained from",
        ),
    ],
)  # fmt: skip
def test_a_folder_is_named_as_what_it_is_with_a_way_out(tmp_path, files, says, way):
    folder = write(tmp_path / "it's", files)
    with pytest.raises(ModelError, match=says) as caught:
        require_no_other_form(folder)
    assert way in str(caught.value.hint)
    assert "For" not in caught.value.message


def test_a_gguf_file_is_named_by_its_content(tmp_path):
    write(tmp_path, {"a.gguf": GGUF, "b.bin": GGUF, "c.txt": b"text"})
    for name in ("a.gguf", "b.bin"):
        with pytest.raises(ModelError, match=f"{name}: a GGUF file"):
            require_no_other_form(tmp_path / name)
    require_no_other_form(tmp_path / "c.txt")


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": GPT, **WEIGHTS},
        {"config.json": GPT, **WEIGHTS, "model.gguf": GGUF, "onnx/model.onnx": b""},
        {"config.json": {**GPT, "architectures": ["GPT2LMHeadModel"], "is_encoder_decoder": False},
         "model.safetensors.index.json": {"weight_map": {}}},
        {"config.json": {**GPT, "quantization_config": None}, **WEIGHTS},
        {"config.json": {**GPT, "architectures": ["A", 3]}, **WEIGHTS},
        {"config.json": b"nonsense"},
        {"config.json": b"[" * 100_000},
        {"notes.txt": b"", "config.json": GPT},
    ],
)  # fmt: skip
def test_other_folders_pass(tmp_path, files):
    require_no_other_form(write(tmp_path / "model", files))


@pytest.mark.parametrize("base", ["a/b", "$(touch owned)", "it's", '"; touch owned; "'])
def test_the_command_of_an_adapter_holds_foreign_names_as_one_word(tmp_path, base):
    import shlex

    config = {**LORA, "base_model_name_or_path": base}
    with pytest.raises(ModelError) as caught:
        require_no_other_form(write(tmp_path / "adapter", {"adapter_config.json": config}))
    command = str(caught.value.hint).partition("\n")[2]
    python, flag, _, *arguments = shlex.split(command)
    assert (python, flag) == (sys.executable, "-c")
    assert arguments[1] == base
    assert arguments[2] == str(tmp_path / "adapter-merged")
