"""View of `export`: the folder on stdout; the receipt and the next commands on stderr."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import typer

from convo_cli.cli.console import printable
from convo_cli.errors import typeable
from convo_cli.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from convo_cli.export.exporting import Exported
    from convo_cli.export.format import About
    from convo_cli.export.proof.receipt import Compared, Receipt, RuntimeVersion
    from convo_cli.export.verifying import Verified

_PARTS = {
    "hard_texts": "hard texts of convo's own",
    "training_texts": "texts of the training data",
    "prompts": "prompts",
}
"""Fields of the receipt whose tokens are compared, with the words for people."""
_LONGEST_NAME = 60


def as_record(exported: Exported) -> dict[str, Any]:
    """Return the export as the `--json` object."""
    receipt = exported.receipt
    return {
        "source": str(exported.source),
        "checkpoint": None if exported.loaded is None else exported.loaded.as_record(),
        "out": str(exported.out),
        "format": receipt.export,
        "dtype": receipt.dtype,
        "bytes": exported.num_bytes,
        "files": list(exported.files),
        "verified": {
            "prompts": receipt.prompts.num if receipt.prompts else 0,
            "tokens": receipt.replies.num_tokens if receipt.replies else 0,
            "classes": list(receipt.runtime.classes if receipt.runtime else ()),
        },
        "receipt": receipt.model_dump(mode="json"),
    }


def show_export(exported: Exported, about: About, *, is_quiet: bool) -> None:
    """Print the folder and, unless quiet, the receipt and the next commands."""
    from convo_cli.export.card.upload_line import UPLOAD_NOTE, upload_command
    from convo_cli.report.shown import size

    typer.echo(printable(str(exported.out)))
    if is_quiet:
        return
    lines = [*receipt_lines(exported.receipt, exported.source.name, typeable(exported.out))]
    lines.append(f"{size(exported.num_bytes)} in {counted(len(exported.files), 'file')}")
    if about.remark:
        lines.append(about.remark)
    fields = {
        "folder": typeable(exported.out),
        "name": _name(exported.out),
        "max_length": exported.max_length,
    }
    commands = [command.format(**fields) for command in about.commands]
    if commands:
        lines += ["next:", *(f"  {command}" for command in commands)]
    lines += ["to share it:", f"  {upload_command(exported.out)}", f"  ({UPLOAD_NOTE})"]
    typer.echo("\n".join(map(printable, lines)), err=True)


def verified_record(verified: Verified) -> dict[str, Any]:
    """Return a verified export as the `--json` object."""
    return {
        "folder": str(verified.folder),
        "format": verified.export,
        "dtype": verified.dtype,
        "num_files": verified.num_files,
        "runtime": verified.runtime.version if verified.runtime else None,
        "verified": {
            "hard_texts": verified.hard_texts.num if verified.hard_texts else 0,
            "prompts": verified.prompts.num if verified.prompts else 0,
            "tokens": verified.replies.num_tokens if verified.replies else 0,
        },
        "notes": list(verified.notes),
    }


def show_verified(verified: Verified, *, is_quiet: bool) -> None:
    """Print what is as the export was written."""
    lines = []
    if verified.num_files:
        lines.append(f"{counted(verified.num_files, 'file')} as they were written")
    if verified.runtime is not None:
        lines += _compared(verified, verified.runtime, "the checkpoint")
    lines += verified.notes
    typer.echo(printable(str(verified.folder)))
    if not is_quiet:
        typer.echo("\n".join(map(printable, lines)), err=True)


def receipt_lines(receipt: Receipt, source: str, out: str) -> Iterator[str]:
    """Yield what was compared with the checkpoint, and what differs.

    ``out`` is the export's folder as typed into a shell.
    """
    if receipt.runtime is None:
        yield f"to check it: {receipt.how_to_check.replace('FOLDER', out)}"
        return
    yield from _compared(receipt, receipt.runtime, source)
    replies = receipt.replies
    if replies is not None and replies.num_ties:
        verb = "differs" if replies.num_ties == 1 else "differ"
        yield (
            f"  {replies.num_ties:,} of {replies.num:,} replies {verb} only where two tokens are "
            "as likely"
        )
    if receipt.perplexity is not None:
        both = receipt.perplexity
        yield (
            f"  perplexity on {both.data_in_words} ({counted(both.num_targets, 'token')}): "
            f"{both.export:.4g} (checkpoint: {both.checkpoint:.4g})"
        )
    for name in (*_PARTS, "replies"):
        part = getattr(receipt, name)
        if part is not None and part.first_difference is not None:
            yield f"  first difference in the {_words(name)}: {part.first_difference}"
    for name, reason in receipt.absent.items():
        yield f"  not compared: {_words(name)} ({reason})"


def _compared(compared: Receipt | Verified, runtime: RuntimeVersion, source: str) -> Iterator[str]:
    """Yield the program, and what it gave like the checkpoint."""
    name, version = runtime.name, runtime.version
    program = version if version.startswith(name) else f"{name} ({version})"
    how = "equal to" if is_equal(compared) else "compared with"
    yield f"{how} {source} in {program}:"
    parts = ((getattr(compared, name, None), words) for name, words in _PARTS.items())
    counts = [_count(part, words) for part, words in parts if part is not None]
    if counts:
        yield f"  same tokens: {', '.join(counts)}"
    if (replies := compared.replies) is not None:
        share = _share(replies.num_equal_tokens, replies.num_tokens)
        yield f"  replies of {replies.num:,} prompts without sampling: {share} the same"


def is_equal(compared: Receipt | Verified) -> bool:
    """Return whether everything that was compared is the same, ties aside."""
    parts = [getattr(compared, name, None) for name in (*_PARTS, "replies")]
    return all(part is None or part.first_difference is None for part in parts)


def _words(field: str) -> str:
    return field.replace("_", " ")


def _count(part: Compared, words: str) -> str:
    return _share(part.num_equal, part.num, words)


def _share(num_equal: int, num: int, words: str = "tokens") -> str:
    share = "" if num == num_equal else f" ({num_equal / num:.1%})"
    return f"{num_equal:,} of {num:,} {words}{share}"


def _name(out: Path) -> str:
    """Return the folder's name as a model's name in Ollama."""
    name = re.sub(r"[^a-z0-9]+", "-", out.resolve().name.lower())[:_LONGEST_NAME].strip("-")
    return name or "model"
