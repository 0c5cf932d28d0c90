"""`convo export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from convo_cli.cli.options import JsonOption, QuietOption


def export(
    source: Annotated[Path, typer.Argument(help="A run directory (its last checkpoint) or a checkpoint.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    format: Annotated[  # noqa: A002  (the option's name)
        Literal["huggingface"], typer.Option(help="What to write.")
    ] = "huggingface",
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Write a folder that plain transformers loads, and prove that it answers like the checkpoint.

    Example: convo export runs/convo exports/convo
    """
    from convo_cli.cli.console import print_json, printable, stderr_console
    from convo_cli.errors import UsageError, typeable

    if not source.is_dir():
        raise UsageError(
            f"{source}: " + ("not a directory" if source.exists() else "no such directory"),
            hint="give a run directory, such as runs/convo, or one of its checkpoints",
        )
    from convo_cli.runs.model_folder import require_writable
    from convo_cli.text.bounded.client import start_bounded_process

    require_writable(out, force=force)
    start_bounded_process()

    from convo_cli.cli.views.progress import make_progress
    from convo_cli.events import Notice
    from convo_cli.export.huggingface import export_huggingface
    from convo_cli.storage.access import derived_mode

    with make_progress(stderr_console(), is_quiet=is_quiet, log_every=1, show_samples=0) as emit:
        exported = export_huggingface(source, out, force=force, emit=emit)
        if out.stat().st_mode & 0o077 & ~derived_mode([exported.source], out):
            message = (
                f"{out}: other users can read it, although they cannot read {source}; `chmod -R go= {typeable(out)}`"
            )
            emit(Notice(f"{message} makes it private", is_warning=True))
    receipt = exported.receipt
    if as_json:
        print_json(
            "export",
            {
                "source": str(exported.source),
                "out": str(exported.out),
                "format": format,
                "files": list(exported.files),
                "verified": {"prompts": receipt.num_prompts, "tokens": receipt.num_tokens},
            },
        )
        return
    typer.echo(printable(str(exported.out)))
    if not is_quiet:
        typer.echo(
            f"verified: reloaded with plain transformers, {receipt.num_prompts} prompts, {receipt.num_tokens} tokens, "
            f"all equal to {printable(exported.source.name)}\nnext:\n  convo chat {typeable(exported.out)}",
            err=True,
        )
