"""Export format `huggingface`: a folder for today's transformers, which convo opens too."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from convo_cli.events import Emit
from convo_cli.export.exporting import TEMPLATE_FILE, Format
from convo_cli.export.proof.comparison import Receipt, verify_export
from convo_cli.model.decoding.generator import Generator
from convo_cli.storage.foreign_files import remove_foreign_entries

_CARD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags: [conversational, convo]
---

# {name}

A multi-turn conversation model trained with [convo](https://pypi.org/project/convo-cli/) {version}.

```python
from transformers import pipeline

chat = pipeline("text-generation", model="path/to/this/folder")
print(chat([{{"role": "user", "content": "Hello!"}}])[0]["generated_text"][-1]["content"])
```

Template `{template}`; a reply ends with {stop}; trained on sequences of at most {max_length}
tokens. `dialogue.json` defines how turns become tokens. `convo chat` opens this folder too.
"""


def _write(files: Sequence[Path], original: Generator, folder: Path, _: Emit) -> None:
    for file in files:
        shutil.copyfile(file, folder / file.name)
    original.model.generation_config.save_pretrained(folder)
    remove_foreign_entries(folder)
    # transformers gets the template of the encoder, not a program that came with the folder.
    chat_template = original.encoder.template.chat_template
    (folder / TEMPLATE_FILE).write_text(chat_template, encoding="utf-8", newline="\n")


def _verify(folder: Path, original: Generator, _: Emit) -> Receipt:
    return verify_export(folder, original)


HUGGINGFACE = Format(_write, _verify, _CARD)
