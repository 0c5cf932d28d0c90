"""Checks of arguments that need nothing heavy, so that a mistake is answered at once."""

from __future__ import annotations

import re
from pathlib import Path

from convo_cli.errors import UsageError

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def require_device(name: str) -> None:
    """Raise UsageError for what is no device name; whether the machine has it is seen later."""
    if not _DEVICE.fullmatch(name):
        raise UsageError(f"--device {name}: unknown", hint="auto, cpu, cuda, cuda:0 or mps")


def require_model(source: str) -> None:
    """Raise UsageError for what is neither an existing directory nor has the form of a hub id."""
    path = Path(source)
    if path.exists() and not path.is_dir():
        raise UsageError(f"{source}: not a directory", hint="give a run directory, a checkpoint or an exported model")
    if not path.exists() and not _HUB_ID.fullmatch(source):
        raise UsageError(f"{source}: no such directory")
