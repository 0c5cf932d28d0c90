"""Export format `legacy`: the files of convmodel's `export_model`, for old transformers.

`pytorch_model.bin` is the only pickle that convo writes. It holds only tensors, so
`torch.load(weights_only=True)` opens it. convo never opens it: the receipt comes from a process of
its own, and every command refuses the folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convo_cli.events import Emit, Notice
from convo_cli.export.format import About, Dtype, OtherReading, Runtime
from convo_cli.export.tokenizer_kinds import tokenizer_json_kind
from convo_cli.runs.model_folder import LEGACY_WEIGHTS
from convo_cli.storage.foreign_files import remove_foreign_entries
from convo_cli.text.spiece.piece_model import SPIECE_FILE

if TYPE_CHECKING:
    import torch

    from convo_cli.export.source import Source

_OLD_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_new"}
"""The same functions by names that transformers has had from the beginning."""
_NO_SPIECE = "the tokenizer has no SentencePiece model"
_USAGE = """\
The folder is for transformers before 5 and convmodel.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
```

The weights are in `pytorch_model.bin`, a pickle that holds only tensors:
`torch.load("pytorch_model.bin", weights_only=True)` opens it. convo never opens a pickle; the run
that this model comes from has the same weights as safetensors.
"""


def about() -> About:
    """Return what the format needs and holds."""
    return About(
        summary="for transformers before 5 and convmodel",
        usage=_USAGE,
        weights="pytorch_model.bin",
        other_names=("convmodel", "bin", "pytorch", "old"),
        remark="pytorch_model.bin is a pickle of tensors, which convo never opens; for convo, "
        "export without --format",
        architectures=frozenset({"gpt2"}),
        inexact=_inexact,
        explains=_explains,
        runs_with=("torch", "transformers"),
        library="transformers",
        uses_generation_config=True,
    )


def _inexact(tokenizer: Mapping[str, Any]) -> str | None:
    if tokenizer_json_kind(dict(tokenizer)) in ("unigram", "sentencepiece bpe"):
        return "its spiece.model is read by SentencePiece, which cuts a few texts differently"
    return None


def _explains(tokenizer: Mapping[str, Any], reading: OtherReading) -> bool:
    """Return whether a prompt is the same text in other pieces; a template may not differ."""
    if not reading.is_prompt:
        return True
    vocab = tokenizer["model"]["vocab"]
    names = vocab if isinstance(vocab, dict) else {piece: k for k, (piece, _) in enumerate(vocab)}
    pieces = {index: piece for piece, index in names.items()}
    pieces |= {one["id"]: one["content"] for one in tokenizer.get("added_tokens") or ()}
    text, wanted = (
        "".join(pieces.get(index, f"<{index}>") for index in ids)
        for ids in (reading.ids, reading.wanted)
    )
    return text == wanted


def write(source: Source, folder: Path, dtype: Dtype, emit: Emit) -> None:
    """Write the folder, with the tokenizer as a SentencePiece model if it has one."""
    from convo_cli.export.folders.legacy_tokenizer import (
        ADDED_FILE,
        reads_alike,
        write_json,
        write_tokenizer,
    )

    files, original = source.files, source.generator
    stated = {file.name: file for file in files}
    config = json.loads(stated["config.json"].read_bytes())
    activation = config.get("activation_function", "gelu_new")
    config["activation_function"] = _OLD_ACTIVATIONS.get(activation, activation)
    # Before 4.26, transformers knew neither a generation config nor several end tokens.
    config["eos_token_id"] = original.encoder.stop_ids[0]
    config["torch_dtype"] = "float32"
    write_json(folder / "config.json", config)
    original.model.generation_config.save_pretrained(folder)
    remove_foreign_entries(folder)
    spiece = next((file.read_bytes() for file in files if file.suffix == ".model"), None)
    write_tokenizer(original.encoder, spiece, folder)
    if spiece is None:
        _note_files(folder, _NO_SPIECE, emit)
    elif not reads_alike(folder, original.encoder):
        for name in (SPIECE_FILE, ADDED_FILE):
            (folder / name).unlink()
        write_tokenizer(original.encoder, None, folder)
        _note_files(folder, f"{SPIECE_FILE} alone gives other ids than the tokenizer", emit)
    weights = {name: tensor.detach() for name, tensor in original.model.state_dict().items()}
    _save_tensors(weights, folder / LEGACY_WEIGHTS)


def _save_tensors(weights: dict[str, torch.Tensor], file: Path) -> None:
    """Write a pickle of tensors; tied weights are stored once."""
    import torch

    with file.open("wb") as opened:
        try:
            torch.save(weights, opened)
        except RuntimeError as error:  # torch's own error hides that of the disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _note_files(folder: Path, why: str, emit: Emit) -> None:
    """Emit a notice that the tokenizer has other files than a SentencePiece model, and why."""
    from convo_cli.export.folders.legacy_tokenizer import GPT2_FILES, PLAIN_FILES

    is_plain = (folder / PLAIN_FILES[0]).exists()
    written = PLAIN_FILES if is_plain else GPT2_FILES
    message = f"export: {' and '.join(written)} instead of {SPIECE_FILE}: {why}"
    if is_plain:
        message += "; transformers needs a release of the tokenizers library that reads this file"
    emit(Notice(message, is_warning=is_plain))


def open_runtime(folder: Path, base: Path | None) -> Runtime:
    """Open the folder with plain transformers."""
    from convo_cli.export.folders.transformers_runtime import TransformersRuntime

    return TransformersRuntime(folder)
