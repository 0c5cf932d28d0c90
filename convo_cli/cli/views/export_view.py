"""View of `export`: the folder on stdout; the proof and the next command on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from convo_cli.cli.console import printable
from convo_cli.errors import typeable
from convo_cli.wording import counted

if TYPE_CHECKING:
    from convo_cli.export.huggingface import Exported


def as_record(exported: Exported, format: str) -> dict[str, Any]:  # noqa: A002  (the option's name)
    """Return the export as the `--json` object."""
    receipt = exported.receipt
    return {
        "source": str(exported.source),
        "checkpoint": None if exported.loaded is None else exported.loaded.as_record(),
        "out": str(exported.out),
        "format": format,
        "files": list(exported.files),
        "verified": {"prompts": receipt.num_prompts, "tokens": receipt.num_tokens},
    }


def show_export(exported: Exported, *, is_quiet: bool) -> None:
    """Print the folder and, unless quiet, the proof and the next command."""
    typer.echo(printable(str(exported.out)))
    if not is_quiet:
        receipt = exported.receipt
        typer.echo(
            f"verified: reloaded with plain transformers, "
            f"{counted(receipt.num_prompts, 'prompt')}, {counted(receipt.num_tokens, 'token')}, "
            f"all equal to {printable(exported.source.name)}\n"
            f"next:\n  convo chat {typeable(exported.out)}",
            err=True,
        )
