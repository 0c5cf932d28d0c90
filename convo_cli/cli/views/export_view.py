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
    from convo_cli.export.proof.receipt import Compared, Receipt, Replies, RuntimeVersion
    from convo_cli.export.verifying import Verified

_PARTS = {
    "hard_texts": "hard texts",
    "training_texts": "training texts",
    "prompts": "prompts",
}
"""Fields of the receipt, with the words for people."""
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
    fields = {"folder": typeable(exported.out), "name": _name(exported.out)}
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
        lines.append(f"equal to the checkpoint in {_counts(verified, verified.runtime)}")
    lines += verified.notes
    typer.echo(printable(str(verified.folder)))
    if not is_quiet:
        typer.echo("\n".join(map(printable, lines)), err=True)


def receipt_lines(receipt: Receipt, source: str, out: str) -> Iterator[str]:
    """Yield what was compared with the checkpoint, and what differs.

    ``out`` is the export's folder as typed into a shell.
    """
    if receipt.runtime is None:
        yield f"not checked here: {receipt.how_to_check.replace('FOLDER', out)}"
        return
    how = "equal to" if is_equal(receipt) else "compared with"
    yield f"{how} {source} in {_counts(receipt, receipt.runtime)}"
    replies = receipt.replies
    if replies is not None and replies.num_ties:
        verb = "differs" if replies.num_ties == 1 else "differ"
        yield (
            f"{replies.num_ties:,} of {replies.num:,} replies {verb} only where two tokens are as "
            "likely"
        )
    if receipt.perplexity is not None:
        both = receipt.perplexity
        yield (
            f"perplexity on {counted(both.num_targets, 'target')} of {both.data_in_words}: "
            f"{both.export:.4g} (checkpoint: {both.checkpoint:.4g})"
        )
    for name, words in {**_PARTS, "replies": "replies"}.items():
        part = getattr(receipt, name)
        if part is not None and part.first_difference is not None:
            yield f"first difference in the {words}: {part.first_difference}"
    for name, reason in receipt.absent.items():
        yield f"not compared: {_PARTS.get(name, name.replace('_', ' '))} ({reason})"


def _counts(compared: Receipt | Verified, runtime: RuntimeVersion) -> str:
    """Return the program, and what it read alike."""
    classes = f" ({', '.join(runtime.classes)})" if runtime.classes else ""
    parts = ((getattr(compared, name, None), words) for name, words in _PARTS.items())
    counts = [_count(part, words) for part, words in parts if part is not None]
    if compared.replies is not None:
        counts.append(_replies(compared.replies))
    name, version = runtime.name, runtime.version
    program = version if version.startswith(name) else f"{name} ({version})"
    return f"{program}{classes}: {', '.join(counts)}"


def is_equal(receipt: Receipt) -> bool:
    """Return whether everything that was compared is the same, ties aside."""
    parts = [getattr(receipt, name) for name in (*_PARTS, "replies")]
    return all(part is None or part.first_difference is None for part in parts)


def _count(part: Compared, words: str) -> str:
    if part.num == part.num_equal:
        return f"{part.num:,} {words}"
    return f"{part.num_equal:,} of {part.num:,} {words} ({part.num_equal / part.num:.1%})"


def _replies(replies: Replies) -> str:
    if replies.num_tokens == replies.num_equal_tokens:
        return counted(replies.num_tokens, "reply token")
    share = replies.num_equal_tokens / replies.num_tokens
    return f"{replies.num_equal_tokens:,} of {replies.num_tokens:,} reply tokens ({share:.1%})"


def _name(out: Path) -> str:
    """Return the folder's name as a model's name in Ollama."""
    name = re.sub(r"[^a-z0-9]+", "-", out.resolve().name.lower())[:_LONGEST_NAME].strip("-")
    return name or "model"
