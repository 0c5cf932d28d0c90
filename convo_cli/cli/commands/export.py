"""The `convo export` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convo_cli.cli.options import BaseOption, JsonOption, LoadOption, QuietOption
from convo_cli.errors import typeable
from convo_cli.events import Emit, Notice

if TYPE_CHECKING:
    from convo_cli.export.exporting import Exported


def export(
    source: Annotated[
        Path, typer.Argument(help="A run directory, created by `convo train`, or a checkpoint.")
    ],
    out: Annotated[Path, typer.Argument(help="The folder to create.")],
    load: LoadOption = None,
    base: BaseOption = None,
    format: Annotated[  # noqa: A002  (the option's name)
        Literal["huggingface", "legacy", "adapter"],
        typer.Option(
            help="huggingface; legacy for transformers before 5 and convmodel (GPT-2); adapter for "
            "the adapter of a run with model.lora alone."
        ),
    ] = "huggingface",
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Write a model folder that transformers loads, and check that it replies like the checkpoint.

    Example: convo export runs/convo exports/convo
    """
    from convo_cli.cli.console import announce
    from convo_cli.cli.given_paths import require_run_or_checkpoint
    from convo_cli.runs.model_folder import require_writable
    from convo_cli.text.bounded.client import start_bounded_process

    require_run_or_checkpoint(source, load)
    require_writable(out, force=force)
    announce(f"exporting {source} (loading PyTorch takes a few seconds)", is_quiet=is_quiet)
    start_bounded_process()

    from convo_cli.cli.console import print_json, stderr_console
    from convo_cli.cli.streams import finished
    from convo_cli.cli.views.export_view import as_record, show_export
    from convo_cli.cli.views.progress.reporter import make_progress
    from convo_cli.export.exporting import export_checkpoint

    with make_progress(stderr_console(), is_quiet=is_quiet) as emit:
        exported = export_checkpoint(
            source, out, format, force=force, emit=emit, which=load, base=base
        )
        _warn_if_less_private(exported, source, emit)
    with finished(f"the export itself is complete: {typeable(exported.out)}"):
        if as_json:
            print_json("export", as_record(exported, format))
        else:
            show_export(exported, format, is_quiet=is_quiet)


def _warn_if_less_private(exported: Exported, source: Path, emit: Emit) -> None:
    """Warn if other users can read the export, although they cannot read its source."""
    from convo_cli.storage.access import derived_mode

    out = exported.out
    if out.stat().st_mode & 0o077 & ~derived_mode([exported.source], out):
        readable = f"{out}: other users can read it, although they cannot read {source}"
        private = f"`chmod -R go= {typeable(out)}` makes it private"
        emit(Notice(f"{readable}; {private}", is_warning=True))
