"""Export of a checkpoint as a folder, which is written whole or not at all.

A format (`formats.py`) writes its files into a temporary folder; the proof (`proof/`) compares
what the format's runtime reads from them with the checkpoint, before the folder is published.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from convo_cli.config.schema import PretrainedModel
from convo_cli.errors import CheckpointError
from convo_cli.events import Emit, Notice
from convo_cli.export.card.markdown import visible
from convo_cli.export.card.model_card import write_card
from convo_cli.export.export_places import require_outside, require_usable_name
from convo_cli.export.format import CARD_FILE, TEMPLATE_FILE, About, Dtype
from convo_cli.export.formats import FORMATS
from convo_cli.export.proof.proving import prove
from convo_cli.export.proof.receipt import EXPECTED_FILE, Receipt
from convo_cli.export.source import Source
from convo_cli.export.unsupported import (
    require_options,
    require_supported,
    unusable_package,
)
from convo_cli.model.adapters.adapter_files import holds_adapter
from convo_cli.model.adapters.lora import adapter_of, base_folder_of, merge_adapter
from convo_cli.model.decoding.generator import Generator
from convo_cli.model.decoding.sampling_defaults import set_generation_defaults
from convo_cli.model.loading import load_model, save_model
from convo_cli.model.open import generation_defaults, place_of_base
from convo_cli.runs.checkpoints import STATE_FILE
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.loaded import LoadedCheckpoint, find_loaded
from convo_cli.runs.model_folder import DIALOGUE_FILE, require_writable, weight_files
from convo_cli.runs.opening import load_from
from convo_cli.runs.provenance.other_exports import RECEIPT_FILE
from convo_cli.runs.selection import Which
from convo_cli.storage.atomic import make_directory, publish_directory, require_space
from convo_cli.storage.foreign_files import ADAPTER_BASE, ADAPTER_CONFIG, ADAPTER_TENSORS
from convo_cli.storage.sealed import MANIFEST_FILE
from convo_cli.storage.snapshot import Snapshot
from convo_cli.text.contract import load_encoder
from convo_cli.text.spiece.piece_model import find_spiece, read_spiece

_EXPORTED = {"config.json", "tokenizer.json", "tokenizer_config.json", DIALOGUE_FILE}
"""Files whose content is exported besides the weights and a SentencePiece model.

convo writes all other files of an export.
"""
_REPLACED = {
    "generation_config.json",
    TEMPLATE_FILE,
    CARD_FILE,
    RECEIPT_FILE,
    EXPECTED_FILE,
    MANIFEST_FILE,
    STATE_FILE,
    ADAPTER_BASE,
}
"""Files that every export writes itself, or that only training needs: no notice names them."""
_MARGIN = 2**21  # bytes, for the card, the receipt and the manifest
_SHARES: dict[Dtype, float] = {"fp32": 1, "fp16": 0.5, "bf16": 0.5, "q8_0": 0.3, "int8": 0.3}
"""Bytes of weights for each byte in fp32."""
_MAX_NAMES = 5


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export: its folder and files, the receipt, the tokens of a window."""

    source: Path
    loaded: LoadedCheckpoint | None
    """The checkpoint in ``source``; None for another folder."""
    out: Path
    files: tuple[str, ...]
    num_bytes: int
    receipt: Receipt
    max_length: int


def export_checkpoint(
    source: Path,
    out: Path,
    name: str,
    *,
    force: bool,
    emit: Emit,
    dtype: Dtype | None = None,
    which: Which | None = None,
    base: str | None = None,
    max_shard_bytes: int | None = None,
) -> Exported:
    """Export a run's checkpoint, a checkpoint or an export as a new folder.

    ``name`` is that of a format, and ``dtype`` None its first. ``which`` selects the checkpoint of
    a run, as in `convo_cli.runs.opening.open_checkpoint`. ``base`` is the place of an adapter's
    base, if it was moved. ``max_shard_bytes`` limits each file of weights.
    """
    about, chosen = require_options(name, dtype, max_shard_bytes=max_shard_bytes)
    require_outside(out, source)
    require_usable_name(out)
    require_writable(out, force=force)

    def export(opened: Snapshot) -> Exported:
        require_supported(opened.path, name)
        place = place_of_base(opened.path, base, emit)
        read = _read(opened.path, source, emit, place, max_shard_bytes)
        return _export(opened, read, out, name, about, chosen, emit, place)

    return load_from(source, emit, export, which)


def _read(
    folder: Path,
    named: Path,
    emit: Emit,
    base: PretrainedModel | None,
    max_shard_bytes: int | None,
) -> Source:
    """Load a checkpoint; files that an export leaves out are named in a notice."""
    if loaded := find_loaded(folder):
        emit(Notice(loaded.describe(is_selected=folder != named)))
    present = sorted(folder.iterdir())
    spiece = find_spiece(folder)
    has_adapter = holds_adapter(folder)
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
    generator = Generator(load_model(str(folder), base=base), encoder, folder)
    set_generation_defaults(generator.model, encoder, generation_defaults(generator))
    optimizer = folder.glob("optimizer*.safetensors*")
    expected = {*files, *optimizer, *(folder / name for name in _REPLACED)}
    if left_out := [file.name for file in present if file not in expected]:
        emit(Notice(f"export: these files are not exported: {_names(left_out)}"))
    run = None if loaded is None else RunDirectory(folder.resolve().parent.parent)
    is_adapter = adapter_of(generator.model) is not None
    return Source(
        folder=folder,
        files=tuple(files),
        generator=generator,
        loaded=loaded,
        run=run,
        base=base_folder_of(generator.model) if is_adapter else None,
        max_shard_bytes=max_shard_bytes,
    )


def _export(
    opened: Snapshot,
    source: Source,
    out: Path,
    name: str,
    about: About,
    dtype: Dtype,
    emit: Emit,
    base: PretrainedModel | None,
) -> Exported:
    is_merged = about.merges and source.base is not None
    receipts: list[Receipt] = []

    def fill(aside: Path) -> None:
        if is_merged:
            with _merged(source, aside, base) as merged:
                _write(merged, aside, name, about, dtype, emit)
        else:
            _write(source, aside, name, about, dtype, emit)
        opened.require_unchanged()
        receipts.append(prove(name, aside, source, dtype, emit))
        write_card(aside, out.resolve().name, name, about, source, receipts[0])

    if not out.parent.exists():
        make_directory(out.parent)
    require_space(out, _num_bytes(source, dtype, is_merged=is_merged))
    publish_directory(out, fill)
    max_length = source.generator.encoder.max_length
    return Exported(source.folder, source.loaded, out, *_written(out), receipts[0], max_length)


def _num_bytes(source: Source, dtype: Dtype, *, is_merged: bool) -> int:
    """Return the bytes that an export is going to need, a generous estimate."""
    weights = source.generator.model.get_memory_footprint()  # in fp32
    size = _MARGIN + sum(
        file.stat().st_size for file in source.files if file.suffix != ".safetensors"
    )
    if is_merged or source.base is None:
        size += int(weights * _SHARES[dtype])
    else:
        size += sum(file.stat().st_size for file in source.files)
    if is_merged:  # the merged model is written, too, before it is exported
        size += weights
    return size


def _written(out: Path) -> tuple[tuple[str, ...], int]:
    """Return the names of an export's files, and their bytes."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    names = tuple(path.relative_to(out).as_posix() for path in files)
    return names, sum(path.stat().st_size for path in files)


def _write(source: Source, folder: Path, name: str, about: About, dtype: Dtype, emit: Emit) -> None:
    for module in about.writes_with:
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken package raises more than ImportError
            raise unusable_package(name, about, error) from error
    try:
        FORMATS[name].write(source, folder, dtype, emit)
    except ImportError as error:
        raise unusable_package(name, about, error) from error


@contextmanager
def _merged(source: Source, aside: Path, base: PretrainedModel | None) -> Iterator[Source]:
    """Yield a checkpoint whose adapter is merged into its base, in a folder that is removed."""
    original = source.generator
    model = load_model(str(source.folder), base=base)
    merge_adapter(model)
    model.generation_config = original.model.generation_config
    whole = aside / "merged"
    whole.mkdir()
    save_model(model, whole)
    kept = [file for file in source.files if file.name not in (ADAPTER_CONFIG, ADAPTER_TENSORS)]
    written = [file for file in whole.iterdir() if file.name not in _REPLACED]
    yield replace(
        source, files=(*kept, *written), generator=Generator(model, original.encoder), base=None
    )
    shutil.rmtree(whole)


def _names(names: Iterable[str]) -> str:
    first, *more = [visible(name) for name in names]
    shown = ", ".join([first, *more[: _MAX_NAMES - 1]])
    return shown + (f" and {len(more) + 1 - _MAX_NAMES:,} more" if len(more) >= _MAX_NAMES else "")
