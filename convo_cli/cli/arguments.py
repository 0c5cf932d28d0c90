"""Checks of arguments that need nothing heavy, so that a mistake is answered at once."""

from __future__ import annotations

import re
from pathlib import Path

from convo_cli.errors import UsageError

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_MODEL = "give the path of a folder that exists, or a hub id"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def require_device(name: str) -> None:
    """Raise UsageError for what is no device name; whether the machine has it is seen later."""
    if not _DEVICE.fullmatch(name):
        raise UsageError(f"--device {name}: unknown", hint="auto, cpu, cuda, cuda:0 or mps")


def is_text(argument: str) -> bool:
    """Whether an argument is Unicode text; Python takes other bytes in as halves of surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)


def require_model(source: str) -> None:
    """Raise what is wrong with a model to open, at first sight: a run or checkpoint is verified when it is opened."""
    from convo_cli.runs.directory import RunDirectory
    from convo_cli.storage.sealed import MANIFEST_FILE

    path = Path(source)
    if not source or not (RunDirectory(path).is_run or (path / MANIFEST_FILE).exists()):
        require_pretrained(source)


def require_pretrained(source: str) -> None:
    """Raise what is wrong with the folder of a transformers model, or with its name; a hub id is looked up later."""
    path = Path(source)
    if source and path.is_dir():
        from convo_cli.runs.model_folder import require_model_folder

        require_model_folder(path)
    elif source and path.exists():
        raise UsageError(f"{source}: not a directory", hint=_MODEL)
    elif not _HUB_ID.fullmatch(source):
        raise UsageError(f"{source or repr(source)}: no such directory", hint=_MODEL)
