"""Export format `huggingface`: a folder for today's transformers, which convo opens too."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli.events import Emit
from convo_cli.export.format import About, Dtype, Runtime
from convo_cli.storage.foreign_files import INDEX, remove_foreign_entries

if TYPE_CHECKING:
    from convo_cli.export.source import Source

_USAGE = """\
```python
from transformers import pipeline

chat = pipeline("text-generation", model="path/to/this/folder")
print(chat([{{"role": "user", "content": "Hello!"}}])[0]["generated_text"][-1]["content"])
```
"""


def about() -> About:
    """Return what the format needs and holds."""
    return About(
        summary="for today's transformers, vLLM and other servers; convo opens it too",
        usage=_USAGE,
        weights="model*.safetensors",
        other_names=("hf", "hugging-face", "transformers", "safetensors", "vllm", "tgi"),
        commands=("convo chat {folder}",),
        dtypes=("fp32", "fp16", "bf16"),
        runs_with=("torch", "transformers"),
        library="transformers",
        server='convo serve path/to/this/folder    # pip install "convo-cli[serve]"',
        shards=True,
        uses_generation_config=True,
    )


def write(source: Source, folder: Path, dtype: Dtype, emit: Emit) -> None:
    """Write the folder; in fp32 its weights are the checkpoint's, byte for byte."""
    from convo_cli.export.folders.stated_tokens import state_config, state_tokens
    from convo_cli.export.folders.stored_weights import TORCH_TYPES, write_weights

    original = source.generator
    weights = [file for file in source.files if file.suffix == ".safetensors"]
    for file in source.files:
        if file not in weights and file.name != INDEX:
            shutil.copyfile(file, folder / file.name)
    original.model.generation_config.save_pretrained(folder)
    remove_foreign_entries(folder)
    torch_dtype = str(TORCH_TYPES[dtype]).removeprefix("torch.")
    state_config(folder, original.encoder, torch_dtype)
    # transformers gets the template of the encoder, not a program that came with the folder.
    state_tokens(folder, original.encoder, original.model, emit)
    write_weights(weights, folder, dtype, source.max_shard_bytes)


def open_runtime(folder: Path, base: Path | None) -> Runtime:
    """Open the folder with plain transformers."""
    from convo_cli.export.folders.transformers_runtime import TransformersRuntime

    return TransformersRuntime(folder)
