"""Export format `huggingface`: a folder for today's transformers, which convo opens too."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli.events import Emit
from convo_cli.export.format import TEMPLATE_FILE, About, Dtype, Runtime
from convo_cli.storage.foreign_files import remove_foreign_entries

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
        summary="for today's transformers; convo opens it too",
        usage=_USAGE,
        commands=("convo chat {folder}",),
        uses_generation_config=True,
    )


def write(source: Source, folder: Path, dtype: Dtype, emit: Emit) -> None:
    """Write the folder: the checkpoint's own weights, config and tokenizer."""
    original = source.generator
    for file in source.files:
        shutil.copyfile(file, folder / file.name)
    original.model.generation_config.save_pretrained(folder)
    remove_foreign_entries(folder)
    # transformers gets the template of the encoder, not a program that came with the folder.
    chat_template = original.encoder.template.chat_template
    (folder / TEMPLATE_FILE).write_text(chat_template, encoding="utf-8", newline="\n")


def open_runtime(folder: Path, base: Path | None) -> Runtime:
    """Open the folder with plain transformers."""
    raise NotImplementedError
