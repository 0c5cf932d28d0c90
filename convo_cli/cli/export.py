"""`convo export`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from convo_cli.cli.options import JsonOption, QuietOption


class Format(str, Enum):
    """What to write."""

    huggingface = "huggingface"


def export(
    source: Annotated[Path, typer.Argument(help="A run directory (its last checkpoint) or a checkpoint.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    format: Annotated[Format, typer.Option(help="What to write.")] = Format.huggingface,  # noqa: A002  (the option's name)
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Write a folder that plain transformers loads, and prove that it answers like the checkpoint.

    Example: convo export runs/convo exports/convo
    """
    from convo_cli.cli.console import print_json, printable, stderr_console
    from convo_cli.errors import UsageError

    if not source.is_dir():
        raise UsageError(f"{source}: " + ("not a directory" if source.exists() else "no such file or directory"))

    from convo_cli.cli.progress import make_progress
    from convo_cli.export.huggingface import export_huggingface

    with make_progress(stderr_console(), is_quiet=is_quiet, log_every=1, show_samples=0) as report:
        exported = export_huggingface(source, out, force=force, report=report)
    receipt = exported.receipt
    if as_json:
        print_json(
            "export",
            {
                "source": str(exported.source),
                "out": str(exported.out),
                "format": format.value,
                "files": list(exported.files),
                "verified": {"prompts": receipt.num_prompts, "tokens": receipt.num_tokens},
            },
        )
        return
    typer.echo(printable(str(exported.out)))
    if not is_quiet:
        typer.echo(
            f"verified: reloaded with plain transformers, {receipt.num_prompts} prompts, {receipt.num_tokens} tokens, "
            f"all equal to {printable(exported.source.name)}\nnext:\n  convo chat {printable(str(exported.out))}",
            err=True,
        )
