"""Export format `legacy`: the files of convmodel's `export_model`, for old transformers.

`pytorch_model.bin` is the only pickle that convo writes. It holds only tensors, so
`torch.load(weights_only=True)` opens it. convo never opens it: the receipt comes from a process of
its own, and every command refuses the folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from convo_cli.errors import ModelError
from convo_cli.events import Emit, Notice
from convo_cli.export.exporting import Format
from convo_cli.export.legacy_tokenizer import (
    ADDED_FILE,
    PLAIN_FILES,
    write_json,
    write_tokenizer,
)
from convo_cli.export.plain_receipt import verify_in_process
from convo_cli.export.proof.comparison import OtherPromptError, Receipt
from convo_cli.model.decoding.generator import Generator
from convo_cli.runs.model_folder import LEGACY_WEIGHTS
from convo_cli.storage.foreign_files import remove_foreign_entries
from convo_cli.text.spiece.piece_model import SPIECE_FILE
from convo_cli.text.templates.pieces import special_tokens
from convo_cli.text.tokenizers.probes import PROBES
from convo_cli.wording import quoted

_OLD_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_new"}
"""The same functions by names that transformers has had from the beginning."""
_NO_SPIECE = "the tokenizer has no SentencePiece model"
_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [conversational, convo]
---

# {name}

A multi-turn conversation model trained with [convo](https://pypi.org/project/convo-cli/) {version},
exported with `--format legacy` for transformers before 5 and convmodel.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
```

Template `{template}`; a reply ends with {stop}; trained on sequences of at most {max_length}
tokens. The weights are in `pytorch_model.bin`, a pickle that holds only tensors:
`torch.load("pytorch_model.bin", weights_only=True)` opens it. convo never opens a pickle; the run
that this model comes from has the same weights as safetensors.
"""


def _write(files: Sequence[Path], original: Generator, folder: Path, emit: Emit) -> None:
    stated = {file.name: file for file in files}
    config = json.loads(stated["config.json"].read_bytes())
    if config["model_type"] != "gpt2":
        raise ModelError(
            f"--format legacy writes only GPT-2 models, but this is {config['model_type']}",
            hint="old transformers would read its config.json differently; leave out --format",
        )
    activation = config.get("activation_function", "gelu_new")
    config["activation_function"] = _OLD_ACTIVATIONS.get(activation, activation)
    # Before 4.26, transformers knew neither a generation config nor several end tokens.
    config["eos_token_id"] = original.encoder.stop_ids[0]
    config["torch_dtype"] = "float32"
    write_json(folder / "config.json", config)
    original.model.generation_config.save_pretrained(folder)
    remove_foreign_entries(folder)
    spiece = next((file.read_bytes() for file in files if file.suffix == ".model"), None)
    written = write_tokenizer(original.encoder, spiece, folder)
    if spiece is None:
        _note_files(written, _NO_SPIECE, emit)
    weights = {name: tensor.detach() for name, tensor in original.model.state_dict().items()}
    _save_tensors(weights, folder / LEGACY_WEIGHTS)


def _save_tensors(weights: dict[str, torch.Tensor], file: Path) -> None:
    """Write a pickle of tensors; tied weights are stored once."""
    with file.open("wb") as opened:
        try:
            torch.save(weights, opened)
        except RuntimeError as error:  # torch's own error hides that of the disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _verify(folder: Path, original: Generator, emit: Emit) -> Receipt:
    """Compare replies; a tokenizer of other ids than its SentencePiece model gets tokenizer.json.

    Such are those that came from fairseq, which shift the ids, and those that change the text.
    """
    try:
        return _compare(folder, original, emit)
    except OtherPromptError:
        if not (folder / SPIECE_FILE).exists():
            raise
    for name in (SPIECE_FILE, ADDED_FILE):
        (folder / name).unlink()
    written = write_tokenizer(original.encoder, None, folder)
    _note_files(written, f"{SPIECE_FILE} alone gives other ids than the tokenizer", emit)
    return _compare(folder, original, emit)


def _note_files(written: Sequence[str], why: str, emit: Emit) -> None:
    """Say why the tokenizer has other files than a SentencePiece model."""
    message = f"export: {' and '.join(written)} instead of {SPIECE_FILE}: {why}"
    if written == PLAIN_FILES:
        message += "; transformers needs a release of the tokenizers library that reads this file"
    emit(Notice(message, is_warning=written == PLAIN_FILES))


def _compare(folder: Path, original: Generator, emit: Emit) -> Receipt:
    """Compare replies, and report texts that the tokenizer of the folder encodes differently."""
    tokenizer: Any = original.encoder.tokenizer
    spelled = special_tokens(tokenizer) | {"<unk>"}
    texts = [text for text in PROBES if not any(token in text for token in spelled)]
    receipt, found = verify_in_process(folder, original, texts)
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    both = zip(texts, found, expected, strict=True)
    if others := [text for text, ids, wanted in both if ids != wanted]:
        emit(
            Notice(
                f"export: {len(others)} of {len(texts)} test texts get other ids from "
                f"{receipt.classes[1]}, for example {quoted(others[0])}",
                is_warning=True,
            )
        )
    return receipt


LEGACY = Format(_write, _verify, _CARD)
