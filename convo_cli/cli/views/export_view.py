"""View of `export`: the folder on stdout; the proof and the next command on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from convo_cli.cli.console import printable
from convo_cli.errors import typeable
from convo_cli.wording import counted

if TYPE_CHECKING:
    from convo_cli.export.exporting import Exported


def as_record(exported: Exported, format: str) -> dict[str, Any]:  # noqa: A002  (the option's name)
    """Return the export as the `--json` object."""
    receipt = exported.receipt
    return {
        "source": str(exported.source),
        "checkpoint": None if exported.loaded is None else exported.loaded.as_record(),
        "out": str(exported.out),
        "format": format,
        "files": list(exported.files),
        "verified": {
            "prompts": receipt.prompts.num if receipt.prompts else 0,
            "tokens": receipt.replies.num_tokens if receipt.replies else 0,
            "classes": list(receipt.runtime.classes if receipt.runtime else ()),
        },
    }


def show_export(
    exported: Exported,
    format: str,  # noqa: A002  (the option's name)
    *,
    is_quiet: bool,
) -> None:
    """Print the folder and, unless quiet, the proof and the next command."""
    typer.echo(printable(str(exported.out)))
    if is_quiet:
        return
    receipt = as_record(exported, format)["verified"]
    how = "reloaded with plain transformers"
    following = f"next:\n  convo chat {typeable(exported.out)}"
    if format == "legacy":
        classes = ", ".join(receipt["classes"])
        how = f"opened by plain transformers in a process of its own ({classes})"
        following = (
            "pytorch_model.bin is a pickle of tensors, which convo never opens; for convo, export "
            "without --format"
        )
    if format == "adapter":
        how = "opened by peft on top of its base"
        following += " --base PATH  (where its base is)"
    typer.echo(
        f"verified: {how}, {counted(receipt['prompts'], 'prompt')}, "
        f"{counted(receipt['tokens'], 'token')}, all equal to {printable(exported.source.name)}\n"
        f"{following}",
        err=True,
    )
