"""Losses by file as texts, each file under the shortest name that no other file has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from convo_cli.cli.console import printable

_MAX_FILES = 6
"""Files in one line; the others are counted."""


def names_of(paths: Sequence[str]) -> tuple[str, ...]:
    """Return the last parts of each path, as many as it takes to tell the paths apart."""
    parts = [PurePath(path).parts for path in paths]
    num, most = 1, max(map(len, parts), default=1)
    while num < most and len({one[-num:] for one in parts}) < len(set(parts)):
        num += 1
    return tuple(" ".join(printable(str(PurePath(*one[-num:]))).split()) for one in parts)


def loss_fields(names: Sequence[str], losses: Sequence[float | None]) -> list[str]:
    """Return name and loss of the first files that have one; none without several files."""
    if len(names) != len(losses):  # the start of the run was not seen
        return []
    pairs = zip(names, losses, strict=True)
    fields = [f"{name} {loss:.3f}" for name, loss in pairs if loss is not None]
    left = len(fields) - _MAX_FILES
    return [*fields[:_MAX_FILES], *([f"and {left:,} more"] if left > 0 else [])]
