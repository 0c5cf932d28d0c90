"""Export of a checkpoint (model, tokenizer, chat template) as a folder for plain transformers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from convo_cli import __version__
from convo_cli.errors import CheckpointError
from convo_cli.events import Emit, Notice
from convo_cli.export.proof import Receipt, verify_export
from convo_cli.model.generation import Generator, set_generation_defaults
from convo_cli.model.loading import load_model
from convo_cli.model.open import generation_defaults
from convo_cli.runs.checkpoints import STATE_FILE
from convo_cli.runs.loaded import LoadedCheckpoint, find_loaded
from convo_cli.runs.model_folder import DIALOGUE_FILE, require_writable, weight_files
from convo_cli.runs.opening import load_from
from convo_cli.runs.selection import Which
from convo_cli.storage.atomic import make_directory, publish_directory, require_space
from convo_cli.storage.foreign_files import remove_foreign_entries
from convo_cli.storage.sealed import MANIFEST_FILE
from convo_cli.storage.snapshot import Snapshot
from convo_cli.text.contract import load_encoder
from convo_cli.text.spiece.piece_model import find_spiece, read_spiece

_CARD_FILE = "README.md"
_TEMPLATE_FILE = "chat_template.jinja"
_COPIED = {"config.json", "tokenizer.json", "tokenizer_config.json", DIALOGUE_FILE}
"""Files that are copied besides the weights and a SentencePiece model.

convo writes all other files of an export.
"""
_REPLACED = {
    "generation_config.json",
    _TEMPLATE_FILE,
    _CARD_FILE,
    MANIFEST_FILE,
    STATE_FILE,
    "optimizer.safetensors",
}
_MARGIN = 2**20  # bytes, for the card and the manifest
_MAX_NAMES = 5
_LONGEST_NAME = 80  # characters of a foreign text in the card or a notice
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


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export: its folder and files, and the receipt of the comparison."""

    source: Path
    loaded: LoadedCheckpoint | None
    """The checkpoint in ``source``; None for another folder."""
    out: Path
    files: tuple[str, ...]
    receipt: Receipt


def export_huggingface(
    source: Path, out: Path, *, force: bool, emit: Emit, which: Which | None = None
) -> Exported:
    """Export a model as a folder, which is written whole or not at all.

    ``which`` selects the checkpoint of a run, as in `convo_cli.runs.opening.open_checkpoint`.
    Before the folder is published, plain transformers loads it, and its replies are compared.
    """
    require_writable(out, force=force)
    return load_from(source, emit, lambda opened: _export(opened, source, out, emit), which)


def _export(opened: Snapshot, source: Path, out: Path, emit: Emit) -> Exported:
    folder = opened.path
    if loaded := find_loaded(folder):
        emit(Notice(loaded.describe(is_selected=folder != source)))
    present = sorted(folder.iterdir())
    spiece = find_spiece(folder)
    copied = _COPIED | weight_files(folder) | ({spiece.name} if spiece else set())
    files = [file for file in present if file.name in copied]
    encoder = load_encoder(folder)
    for file in files:
        if file.is_symlink():  # it could lead to any file of this user
            raise CheckpointError(
                f"{file}: a symbolic link, which convo does not export",
                hint="replace the link with a copy of the file",
            )
    if spiece and not read_spiece(folder, str(folder)):
        files.remove(spiece)  # of another format
    original = Generator(load_model(str(folder)), encoder)
    set_generation_defaults(original.model, encoder, generation_defaults(original))
    replaced = {folder / name for name in _REPLACED}
    if left_out := [file.name for file in present if file not in replaced.union(files)]:
        emit(Notice(f"export: these files are not exported: {_names(left_out)}"))
    receipts: list[Receipt] = []

    def fill(aside: Path) -> None:
        for file in files:
            shutil.copyfile(file, aside / file.name)
        original.model.generation_config.save_pretrained(aside)
        remove_foreign_entries(aside)
        # transformers gets the template of the encoder, not a program that came with the folder.
        chat_template = encoder.template.chat_template
        (aside / _TEMPLATE_FILE).write_text(chat_template, encoding="utf-8", newline="\n")
        opened.require_unchanged()
        card = _CARD.format(
            name=as_markdown(out.resolve().name),
            version=__version__,
            template=encoder.template.name,
            stop=as_code(encoder.template.stop_tokens[0]),
            max_length=encoder.max_length,
        )
        (aside / _CARD_FILE).write_text(card, encoding="utf-8")
        emit(Notice("export: comparing replies in plain transformers with the checkpoint's"))
        receipts.append(verify_export(aside, original))

    if not out.parent.exists():
        make_directory(out.parent)
    require_space(out, sum(file.stat().st_size for file in files) + _MARGIN)
    publish_directory(out, fill)
    written = tuple(sorted(path.name for path in out.iterdir()))
    return Exported(folder, loaded, out, written, receipts[0])


def _names(names: Iterable[str]) -> str:
    first, *more = [visible(name) for name in names]
    shown = ", ".join([first, *more[: _MAX_NAMES - 1]])
    return shown + (f" and {len(more) + 1 - _MAX_NAMES:,} more" if len(more) >= _MAX_NAMES else "")


def visible(text: str) -> str:
    """Return one line of bounded length, with escapes for control and invisible characters."""
    shown = text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in shown)


def as_markdown(text: str) -> str:
    """Escape a text, so that Markdown and HTML show it as it is."""
    return re.sub(r"([!-,./:-@\[-`{-~])", r"\\\1", visible(text))


def as_code(text: str) -> str:
    """Return a text as a code span; the fence is longer than any run of backquotes in it."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if text[:1] in ("`", " ") or text[-1:] in ("`", " ") else ""
    return f"{fence}{space}{visible(text)}{space}{fence}"
