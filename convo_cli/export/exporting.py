"""Export of a checkpoint as a folder, which is written whole or not at all.

Each format is a module of this package: it writes its files into a temporary folder, and proves
that the programs of the format reply from them like the checkpoint, before the folder is published.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli import __version__
from convo_cli.config.schema import PretrainedModel
from convo_cli.errors import CheckpointError, UsageError
from convo_cli.events import Emit, Notice
from convo_cli.export.proof.comparison import Receipt
from convo_cli.model.adapters.adapter_files import holds_adapter
from convo_cli.model.adapters.lora import adapter_of, merge_adapter
from convo_cli.model.create import num_embeddings
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.decoding.sampling_defaults import set_generation_defaults
from convo_cli.model.loading import load_model, save_model
from convo_cli.model.open import generation_defaults, place_of_base
from convo_cli.runs.checkpoints import STATE_FILE
from convo_cli.runs.loaded import LoadedCheckpoint, find_loaded
from convo_cli.runs.model_folder import DIALOGUE_FILE, require_writable, weight_files
from convo_cli.runs.opening import load_from
from convo_cli.runs.selection import Which
from convo_cli.storage.atomic import make_directory, publish_directory, require_space
from convo_cli.storage.foreign_files import ADAPTER_BASE, ADAPTER_CONFIG, ADAPTER_TENSORS
from convo_cli.storage.sealed import MANIFEST_FILE
from convo_cli.storage.snapshot import Snapshot
from convo_cli.text.contract import load_encoder
from convo_cli.text.spiece.piece_model import find_spiece, read_spiece

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CARD_FILE = "README.md"
TEMPLATE_FILE = "chat_template.jinja"
_EXPORTED = {"config.json", "tokenizer.json", "tokenizer_config.json", DIALOGUE_FILE}
"""Files whose content is exported besides the weights and a SentencePiece model.

convo writes all other files of an export.
"""
_REPLACED = {
    "generation_config.json",
    TEMPLATE_FILE,
    CARD_FILE,
    MANIFEST_FILE,
    STATE_FILE,
    ADAPTER_BASE,
}
_MARGIN = 2**20  # bytes, for the card and the manifest
_MAX_NAMES = 5
_LONGEST_NAME = 80  # characters of a foreign text in the card or a notice


@dataclass(frozen=True, slots=True)
class Format:
    """A format of export, as two steps and the text of its model card."""

    write: Callable[[Sequence[Path], Generator, Path, Emit], None]
    """Write the format's files into a folder, from the files of a checkpoint and its model."""
    verify: Callable[[Path, Generator, Emit], Receipt]
    """Compare replies of that folder with those of the model; CheckpointError if they differ."""
    card: str
    merges: bool = True
    """An adapter is merged into its base first; else only an adapter can be exported."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export: its folder and files, and the receipt of the comparison."""

    source: Path
    loaded: LoadedCheckpoint | None
    """The checkpoint in ``source``; None for another folder."""
    out: Path
    files: tuple[str, ...]
    receipt: Receipt


def export_checkpoint(
    source: Path,
    out: Path,
    form: Format,
    *,
    force: bool,
    emit: Emit,
    which: Which | None = None,
    base: str | None = None,
) -> Exported:
    """Export a run's checkpoint, a checkpoint or an export as a new folder.

    ``which`` selects the checkpoint of a run, as in `convo_cli.runs.opening.open_checkpoint`.
    ``base`` is the place of an adapter's base, if it was moved.
    """
    require_writable(out, force=force)

    def export(opened: Snapshot) -> Exported:
        return _export(opened, source, out, form, emit, place_of_base(opened.path, base, emit))

    return load_from(source, emit, export, which)


def _export(
    opened: Snapshot,
    source: Path,
    out: Path,
    form: Format,
    emit: Emit,
    base: PretrainedModel | None,
) -> Exported:
    folder = opened.path
    if loaded := find_loaded(folder):
        emit(Notice(loaded.describe(is_selected=folder != source)))
    present = sorted(folder.iterdir())
    spiece = find_spiece(folder)
    has_adapter = holds_adapter(folder)
    if not (form.merges or has_adapter):
        raise UsageError(
            f"--format adapter exports the adapter of a run with model.lora, but {folder} holds a "
            "whole model",
            hint="leave out --format",
        )
    weights = {ADAPTER_CONFIG, ADAPTER_TENSORS} if has_adapter else weight_files(folder)
    exported = _EXPORTED | weights | ({spiece.name} if spiece else set())
    files = [file for file in present if file.name in exported]
    encoder = load_encoder(folder)
    for file in files:
        if file.is_symlink():  # it could lead to any file of this user
            raise CheckpointError(
                f"{file}: a symbolic link, which convo does not export",
                hint="replace the link with a copy of the file",
            )
    if spiece and not read_spiece(folder, str(folder)):
        files.remove(spiece)  # of another format
    original = Generator(load_model(str(folder), base=base), encoder, folder)
    set_generation_defaults(original.model, encoder, generation_defaults(original))
    optimizer = folder.glob("optimizer*.safetensors*")
    expected = {*files, *optimizer, *(folder / name for name in _REPLACED)}
    if left_out := [file.name for file in present if file not in expected]:
        emit(Notice(f"export: these files are not exported: {_names(left_out)}"))
    receipts: list[Receipt] = []

    def fill(aside: Path) -> None:
        if has_adapter and form.merges:
            with _merged(files, original, aside, base) as (whole, merged):
                form.write(whole, merged, aside, emit)
        else:
            form.write(files, original, aside, emit)
        opened.require_unchanged()
        card = form.card.format(
            name=as_markdown(out.resolve().name),
            version=__version__,
            template=encoder.template.name,
            stop=as_code(encoder.template.stop_tokens[0]),
            max_length=encoder.max_length,
            base=described_base(original.model),
            num_embeddings=num_embeddings(original.model),
        )
        (aside / CARD_FILE).write_text(card, encoding="utf-8", newline="\n")
        emit(Notice("export: comparing replies in plain transformers with the checkpoint's"))
        receipts.append(form.verify(aside, original, emit))

    if not out.parent.exists():
        make_directory(out.parent)
    size = sum(file.stat().st_size for file in files)
    if has_adapter and form.merges:
        size += 2 * original.model.get_memory_footprint()  # also merged, before it is copied
    require_space(out, size + _MARGIN)
    publish_directory(out, fill)
    written = tuple(sorted(path.name for path in out.iterdir()))
    return Exported(folder, loaded, out, written, receipts[0])


@contextmanager
def _merged(
    files: Sequence[Path], original: Generator, aside: Path, base: PretrainedModel | None
) -> Iterator[tuple[list[Path], Generator]]:
    """Yield the files and the model of a checkpoint whose adapter is merged into its base."""
    folder = original.folder
    assert folder is not None, "an export has a source"
    model = load_model(str(folder), base=base)
    merge_adapter(model)
    model.generation_config = original.model.generation_config
    whole = aside / "merged"
    whole.mkdir()
    save_model(model, whole)
    kept = [file for file in files if file.name not in (ADAPTER_CONFIG, ADAPTER_TENSORS)]
    written = [file for file in whole.iterdir() if file.name not in _REPLACED]
    yield [*kept, *written], Generator(model, original.encoder)
    shutil.rmtree(whole)


def described_base(model: PreTrainedModel) -> str:
    """Return the base of an adapter for the model card: its hub id, or else the hashes of files."""
    if (adapter := adapter_of(model)) is None:
        return ""
    base = adapter.base
    if base.commit is not None and base.source is not None:
        return f"{as_code(base.source)} at commit {as_code(base.commit)}"
    files = (f"{as_code(name)} {digest}" for name, digest in sorted(base.sha256.items()))
    return "the model with these files (SHA-256): " + ", ".join(files)


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
