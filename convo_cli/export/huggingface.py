"""An export: the folder of a checkpoint without the trainer's files, which plain transformers loads and talks to."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from convo_cli import __version__
from convo_cli.errors import CheckpointError
from convo_cli.events import Notice, Report
from convo_cli.export.verify import Receipt, verify_export
from convo_cli.model.build import load_model
from convo_cli.model.generation import Generator
from convo_cli.runs.atomic import MANIFEST_FILE, make_directory, publish_directory, require_space
from convo_cli.runs.checkpoint import STATE_FILE
from convo_cli.runs.model_folder import require_writable
from convo_cli.runs.opening import load_from
from convo_cli.runs.snapshot import Snapshot
from convo_cli.text.contract import load_encoder

_TRAINER_FILES = {STATE_FILE, MANIFEST_FILE, "optimizer.safetensors"}
_MARGIN = 2**20  # bytes, for the card and the manifest
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

Template `{template}`; a reply ends with `{stop}`; trained on sequences of at most {max_length} tokens.
`dialogue.json` says exactly how turns become tokens. `convo chat` opens this folder too.
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written where, and the proof that it answers like its checkpoint."""

    source: Path
    out: Path
    files: tuple[str, ...]
    receipt: Receipt


def export_huggingface(source: Path, out: Path, *, force: bool, report: Report) -> Exported:
    """Write the folder whole or not at all, after reloading it with plain transformers and comparing its answers."""
    require_writable(out, force=force)
    return load_from(source, report, lambda opened: _export(opened, out, report))


def _export(opened: Snapshot, out: Path, report: Report) -> Exported:
    folder = opened.path
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name not in _TRAINER_FILES]
    for file in files:
        if file.is_symlink():  # to whatever its maker would like to see published
            raise CheckpointError(f"{file}: a symbolic link, which is not exported", hint="put the real file there")
    encoder = load_encoder(folder)
    original = Generator(load_model(str(folder)), encoder)
    receipts: list[Receipt] = []

    def fill(aside: Path) -> None:
        for file in files:
            shutil.copyfile(file, aside / file.name)
        opened.require_unchanged()
        card = _CARD.format(
            name=out.resolve().name,
            version=__version__,
            template=encoder.template.name,
            stop=encoder.template.stop_tokens[0],
            max_length=encoder.max_length,
        )
        (aside / "README.md").write_text(card, encoding="utf-8")
        report(Notice("reloading the export with plain transformers to compare its answers"))
        receipts.append(verify_export(aside, original))

    if not out.parent.exists():
        make_directory(out.parent)
    require_space(out, sum(file.stat().st_size for file in files) + _MARGIN)
    publish_directory(out, fill)
    written = tuple(sorted(path.name for path in out.iterdir()))
    return Exported(folder, out, written, receipts[0])
