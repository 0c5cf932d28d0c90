"""The `convo export` command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convo_cli.cli.options import BaseOption, JsonOption, LoadOption, QuietOption, bytes_in
from convo_cli.errors import UsageError, typeable
from convo_cli.events import Emit, Notice

if TYPE_CHECKING:
    from convo_cli.export.exporting import Exported
    from convo_cli.runs.selection import Which

_DEFAULT = "huggingface"


def _complete_format(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield the formats that begin with a text."""
    from convo_cli.export.formats import FORMATS

    for name, form in FORMATS.items():
        if name.startswith(incomplete):
            yield name, form.about().summary


def export(
    source: Annotated[
        Path,
        typer.Argument(
            help="A run directory, created by `convo train`, or a checkpoint; with --verify, an "
            "export."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Argument(help="The folder to create.", show_default=False),
    ] = None,
    format: Annotated[  # noqa: A002  (the option's name)
        str | None,
        typer.Option(
            metavar="NAME",
            help="huggingface (default); gguf for llama.cpp and Ollama; ctranslate2; onnx; legacy "
            "for transformers before 5 and convmodel (GPT-2); adapter for the adapter of a run "
            "with model.lora alone.",
            autocompletion=_complete_format,
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Type of the weights: fp32 (default), fp16, bf16; q8_0 (gguf) and int8 "
            "(ctranslate2) have 8 bits.",
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            callback=bytes_in,
            help="Largest file of weights, such as 2GB. Default: one file.",
        ),
    ] = None,
    load: LoadOption = None,
    base: BaseOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Compare an export with the ids of its checkpoint; writes nothing."
        ),
    ] = False,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Write a model folder for another program, and check that it replies like the checkpoint.

    The program itself opens the folder before it is published, and receipt.json says what was
    compared. An export that differs is an error and writes nothing.

    Example: convo export runs/convo exports/convo
    """
    if verify:
        given: dict[str, object] = {
            "--format": format, "--dtype": dtype, "--max-shard-size": max_shard_size,
            "--load": load, "--force": force or None,
        }  # fmt: skip
        _verify(source, out, base, given, as_json=as_json, is_quiet=is_quiet)
        return
    if out is None:
        raise UsageError(
            "Missing argument 'OUT'.", hint=f"convo export {typeable(source)} exports/NAME"
        )
    _export(
        source,
        out,
        _DEFAULT if format is None else format,
        dtype,
        None if max_shard_size is None else int(max_shard_size),
        load,
        base,
        force=force,
        as_json=as_json,
        is_quiet=is_quiet,
    )


def _export(
    source: Path,
    out: Path,
    name: str,
    dtype: str | None,
    max_shard_bytes: int | None,
    load: Which | None,
    base: str | None,
    *,
    force: bool,
    as_json: bool,
    is_quiet: bool,
) -> None:
    from convo_cli.cli.console import announce
    from convo_cli.cli.given_paths import require_run_or_checkpoint
    from convo_cli.export.export_places import require_outside, require_usable_name
    from convo_cli.export.unsupported import require_options, require_supported
    from convo_cli.runs.model_folder import require_writable
    from convo_cli.text.bounded.client import start_bounded_process

    about, chosen = require_options(name, dtype, max_shard_bytes=max_shard_bytes)
    require_run_or_checkpoint(source, load)
    require_outside(out, source)
    require_usable_name(out)
    require_writable(out, force=force)
    require_supported(source, name)
    announce(f"exporting {source} (loading PyTorch takes a few seconds)", is_quiet=is_quiet)
    start_bounded_process()

    from convo_cli.cli.console import print_json, stderr_console
    from convo_cli.cli.streams import finished
    from convo_cli.cli.views.export_view import as_record, show_export
    from convo_cli.cli.views.progress.reporter import make_progress
    from convo_cli.export.exporting import export_checkpoint

    with make_progress(stderr_console(), is_quiet=is_quiet) as emit:
        exported = export_checkpoint(
            source,
            out,
            name,
            dtype=chosen,
            force=force,
            emit=emit,
            which=load,
            base=base,
            max_shard_bytes=max_shard_bytes,
        )
        _warn_if_less_private(exported, source, emit)
    with finished(f"the export itself is complete: {typeable(exported.out)}"):
        if as_json:
            print_json("export", as_record(exported))
        else:
            show_export(exported, about, is_quiet=is_quiet)


def _verify(
    folder: Path,
    out: Path | None,
    base: str | None,
    given: dict[str, object],
    *,
    as_json: bool,
    is_quiet: bool,
) -> None:
    """Compare an export with its expected ids; CheckpointError if something differs."""
    if out is not None:
        raise UsageError(
            f"--verify writes nothing, so it takes one folder; the second is {out}",
            hint=f"convo export {typeable(folder)} --verify",
        )
    if option := next((name for name, value in given.items() if value is not None), None):
        raise UsageError(
            f"--verify reads an export as it is, so {option} has no effect",
            hint=f"leave out {option}",
        )
    from convo_cli.cli.console import announce
    from convo_cli.export.export_places import require_export

    require_export(folder)
    announce(f"verifying {folder} (opening it takes a few seconds)", is_quiet=is_quiet)
    from convo_cli.cli.console import print_json, stderr_console
    from convo_cli.cli.views.export_view import show_verified, verified_record
    from convo_cli.cli.views.progress.reporter import make_progress
    from convo_cli.export.verifying import verify_folder

    with make_progress(stderr_console(), is_quiet=is_quiet) as emit:
        verified = verify_folder(folder, emit, base)
    if as_json:
        print_json("export", verified_record(verified))
    else:
        show_verified(verified, is_quiet=is_quiet)


def _warn_if_less_private(exported: Exported, source: Path, emit: Emit) -> None:
    """Warn if other users can read the export, although they cannot read its source."""
    from convo_cli.storage.access import derived_mode

    out = exported.out
    if out.stat().st_mode & 0o077 & ~derived_mode([exported.source], out):
        readable = f"{out}: other users can read it, although they cannot read {source}"
        private = f"`chmod -R go= {typeable(out)}` makes it private"
        emit(Notice(f"{readable}; {private}", is_warning=True))
