"""Models in forms that convo does not read: each is named, with the way to a folder that it reads.

Adapters, GGUF files, quantized weights, weights of other programs, and models of other kinds. Names
and config.json decide; no weights are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convo_cli.errors import ModelError, typeable
from convo_cli.storage.converters import (
    ADAPTER_SCRIPT,
    DEQUANTIZE_SCRIPT,
    GGUF_SCRIPT,
    conversion,
    free_name,
)
from convo_cli.storage.files import read_file
from convo_cli.storage.foreign_files import (
    ADAPTER_BASE,
    ADAPTER_CONFIG,
    INDEX,
    MAX_CONFIG_BYTES,
    json_entries,
)
from convo_cli.wording import on_one_line, quoted

QUANTIZED = {"quantization_config", "compression_config"}
"""Keys that make transformers load other packages, and kernels from a hub.

MLX writes a "quantization" at the top.
"""

_LFS = b"version https://git-lfs.github.com/spec/"
_HEAD_BYTES = 100
_GGUF = (b"GGUF", b"lmgg", b"fmgg", b"tjgg")  # llama.cpp's form, and the older ones before it
_MERGED = {"LORA", "ADALORA", "LOHA", "LOKR", "OFT", "BOFT", "IA3", "VERA", "FOURIERFT", "HRA"}
"""Types of adapters whose weights can be added to those of the model."""
_HUB_SNAPSHOT = "snapshots/*/config.json"
_ORIGINAL = "ask its publisher for the transformers format: config.json and model.safetensors"
_WEIGHTS = (
    ("tf_model*.h5", "TensorFlow"),
    ("flax_model*.msgpack", "Flax"),
    ("*.onnx", "ONNX"),
    ("onnx/*.onnx", "ONNX"),
    ("openvino_model*.xml", "OpenVINO"),
    ("*.mlmodel", "Core ML"),
    ("*.mlpackage", "Core ML"),
    ("*.tflite", "TensorFlow Lite"),
    ("*.engine", "TensorRT"),
    ("*.nemo", "NeMo"),
    ("consolidated*.pth", "the publisher's own program"),
    ("consolidated*.safetensors", "the publisher's own program"),
)
"""File names of weights of other programs."""
_OTHER_KINDS = (
    ("model_index.json", "a Diffusers model, which generates images"),
    ("modules.json", "a sentence-transformers model, which computes embeddings"),
)
_HEADS = re.compile(
    r"For(SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|"
    r"RewardModel|MaskedLM|SequenceScoring)$|RewardModel$"
)
DECODER_HINT = "use a decoder model, such as GPT-2 or Llama"


def require_no_other_form(path: Path) -> None:
    """Raise ModelError for a file or folder of a model in a form that convo does not read.

    A folder without such a form passes, and so does a file that is no model.
    """
    if not path.is_dir():
        if path.is_file() and _is_gguf(path):
            raise _gguf(path, path)
        return
    if (path / ADAPTER_CONFIG).is_file():  # with peft installed, transformers would open it too
        raise _adapter(path)
    for name in ("config.json", INDEX, "model.safetensors"):
        if _head(path / name).startswith(_LFS):
            raise ModelError(
                f"{path / name}: a git-LFS pointer; the file itself was not downloaded",
                hint=f"git -C {typeable(path)} lfs pull",
            )
    for name, what in _OTHER_KINDS:
        if (path / name).is_file() and not (path / "config.json").is_file():
            raise ModelError(f"{path}: {what}", hint=DECODER_HINT)
    if not _has_weights(path):
        _require_no_other_weights(path)
    _require_language_model(path)


def encoder_decoder(source: Path | str, kind: object) -> ModelError:
    """Return the error that a model of this type has an encoder, as T5 and BART have."""
    return ModelError(
        f"{source}: an encoder-decoder model (model_type {_shown(kind)} in config.json), but "
        "convo trains only causal language models",
        hint=DECODER_HINT,
    )


def _require_no_other_weights(folder: Path) -> None:
    """Raise ModelError for a folder without safetensors if it has weights in another form."""
    if gguf := min((file for file in folder.glob("*.*") if _is_gguf(file)), default=None):
        raise _gguf(folder, gguf)
    if parts := sorted(folder.glob("model-*-of-*.safetensors")):
        raise ModelError(
            f"{folder / INDEX}: not found, but the weights are in {_count(len(parts))} "
            f"such as {parts[0].name}",
            hint="copy all files of the model again",
        )
    for pattern, program in _WEIGHTS:
        if found := min(folder.glob(pattern), default=None):
            raise ModelError(
                f"{folder}: its weights are in {_shown(found.relative_to(folder))}, the format "
                f"of {program}, but convo opens only model.safetensors",
                hint=_ORIGINAL,
            )
    if inner := _inner_model(folder):
        raise ModelError(f"{folder}: not a model folder itself", hint=f"give {typeable(inner)}")
    names = {file.name for file in folder.iterdir()}
    if not names:
        raise ModelError(f"{folder}: empty", hint="give the folder of a model")
    if "config.json" not in names and names & {"tokenizer.json", "tokenizer_config.json"}:
        raise ModelError(
            f"{folder}: a tokenizer without a model (there is no config.json)",
            hint="give the folder that also contains the weights",
        )


def _require_language_model(folder: Path) -> None:
    """Raise ModelError if config.json describes quantized weights or a model of another kind."""
    config = _json(folder / "config.json")
    for key, value in json_entries(config):
        if value and (key in QUANTIZED or (key == "quantization" and config.get(key) is value)):
            raise _quantized(folder, key, value)
    heads = config.get("architectures")
    architectures = heads if isinstance(heads, list) else ()
    if config.get("is_encoder_decoder") is True:
        raise encoder_decoder(folder, config.get("model_type"))
    if architectures and all(isinstance(one, str) and _HEADS.search(one) for one in architectures):
        raise ModelError(
            f"{folder}: a classifier, a reward model or an encoder, not a causal language model "
            "(architectures in config.json)",
            hint="use the language model that it was trained from, or " + DECODER_HINT[4:],
        )


def _adapter(folder: Path) -> ModelError:
    config = _json(folder / ADAPTER_CONFIG)
    base, kind = config.get("base_model_name_or_path"), config.get("peft_type", "LORA")
    of_base = f" of {_shown(base)}" if isinstance(base, str) and base else ""
    if (folder / ADAPTER_BASE).is_file():
        merged = typeable(free_name(Path(folder.name), "merged"))
        where = "" if _json(folder / ADAPTER_BASE).get("source") else " --base PATH"
        hint = f"merge it into its model: convo export {typeable(folder)} {merged}{where}"
    elif kind not in _MERGED:
        hint = f"adapters of type {_shown(kind)} cannot be merged; give a whole model"
    else:
        model = base if isinstance(base, str) and base else "BASE"
        merged = conversion(ADAPTER_SCRIPT, folder, model, free_name(folder, "merged"))
        hint = f"merge it into its model (pip install peft); {merged}"
    return ModelError(
        f"{folder}: an adapter{of_base}, but convo needs a whole model ({ADAPTER_CONFIG})",
        hint=hint,
    )


def _gguf(path: Path, file: Path) -> ModelError:
    what = "a GGUF file" if path == file else f"its weights are in {_shown(file.name)}, a GGUF file"
    command = conversion(GGUF_SCRIPT, file.parent, file.name, free_name(file))
    if not _head(file).startswith(_GGUF[0]):
        what, command = what.replace("GGUF", "GGML"), _ORIGINAL
    return ModelError(
        f"{path}: {what}, the format of llama.cpp, but convo opens only model.safetensors",
        hint="use the model that it was converted from, whose weights are more exact; or convert "
        f"it (pip install gguf); {command}"
        if command != _ORIGINAL
        else _ORIGINAL,
    )


def _quantized(folder: Path, key: str, value: Any) -> ModelError:
    method = value.get("quant_method") if isinstance(value, dict) else None
    bits = value.get("bits") if isinstance(value, dict) else None
    if isinstance(value, dict) and value.get("load_in_4bit"):
        bits = 4
    how = ", ".join(
        [*([f"{bits} bits"] if isinstance(bits, int) else []), *([str(method)] if method else [])]
    )
    or_convert = ""
    if method == "bitsandbytes":
        command = conversion(DEQUANTIZE_SCRIPT, folder, free_name(folder))
        or_convert = f"; or convert it (pip install bitsandbytes accelerate); {command}"
    return ModelError(
        f"{folder}: the weights are quantized ({how + '; ' if how else ''}{key} in config.json), "
        "but convo opens only unquantized weights",
        hint="use the model that it was quantized from, which its model card names" + or_convert,
    )


def _has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("model.safetensors", INDEX))


def _inner_model(folder: Path) -> Path | None:
    """Return the newest model folder inside: a trainer's checkpoint, or a snapshot of the hub."""
    patterns = (_HUB_SNAPSHOT, "checkpoint-*/config.json", "*/config.json")
    for pattern in patterns:
        found = [file.parent for file in folder.glob(pattern) if _has_weights(file.parent)]
        if found:
            return max(found, key=lambda one: (len(one.name), one.name))
    return None


def _is_gguf(file: Path) -> bool:
    return file.suffix in (".gguf", ".ggml", ".bin") and _head(file).startswith(_GGUF)


def _head(file: Path) -> bytes:
    """Return the first bytes of a regular file; none if it cannot be read."""
    if not file.is_file():
        return b""
    try:
        with file.open("rb") as opened:
            return opened.read(_HEAD_BYTES)
    except OSError:
        return b""


def _json(file: Path) -> Mapping[str, Any]:
    """Return the object in a JSON file; an empty one if there is none."""
    try:
        value = json.loads(read_file(file, MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return on_one_line(text) if len(text) <= 100 else quoted(text)


def _count(number: int) -> str:
    return f"{number} files" if number > 1 else "a file"
