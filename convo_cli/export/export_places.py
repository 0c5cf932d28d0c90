"""Checks of the folders of an export: where one can be written, and what `--verify` can compare.

Nothing here imports torch.
"""

from __future__ import annotations

import os
from pathlib import Path

from convo_cli.errors import CheckpointError, UsageError, typeable
from convo_cli.runs.checkpoints import STATE_FILE
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.model_folder import DIALOGUE_FILE
from convo_cli.storage.sealed import MANIFEST_FILE

_MAX_NAME_BYTES = 235
"""Temporary names are longer than that of the folder."""
_MAX_NAME_BYTES_OF_SYSTEMS = 255
"""Longer names get the answer that every command gives (`errors`)."""


def require_outside(out: Path, source: Path) -> None:
    """Raise UsageError if an export would be in the place of its source, or inside it."""
    place, own = out.resolve(), source.resolve()
    if place == own:
        raise UsageError(f"{out}: the source itself", hint="choose another folder")
    if own in place.parents:
        raise UsageError(
            f"{out}: inside {source}, which must stay unchanged", hint="choose another folder"
        )


def require_usable_name(out: Path) -> None:
    """Raise UsageError for a path that is not UTF-8 or a name that is too long."""
    size = len(os.fsencode(out.name))
    if _MAX_NAME_BYTES < size <= _MAX_NAME_BYTES_OF_SYSTEMS:
        raise UsageError(
            f"{out.name[:40]}…: this name is too long ({size} bytes)",
            hint=f"give a name of at most {_MAX_NAME_BYTES} bytes, because convo writes the folder "
            "under a longer name first",
        )
    try:
        str(out.resolve()).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{out}: the path is not UTF-8, so the programs that check an export cannot open it",
            hint="choose another folder",
        ) from None


def require_export(folder: Path) -> None:
    """Raise unless this is a folder that `--verify` can compare with its own files.

    UsageError for a run or a checkpoint, CheckpointError for a folder without a manifest and a
    contract.
    """
    if not folder.is_dir():
        what = "not a folder" if os.path.lexists(folder) else "no such folder"
        raise UsageError(f"{folder}: {what}", hint="give the folder of an export")
    is_run = RunDirectory(folder).is_run
    if is_run or (folder / STATE_FILE).is_file():
        raise UsageError(
            f"{folder}: a {'run directory' if is_run else 'checkpoint'}, not an export",
            hint=f"convo export {typeable(folder)} exports/NAME creates an export and checks it",
        )
    if not (os.path.lexists(folder / MANIFEST_FILE) or (folder / DIALOGUE_FILE).exists()):
        raise CheckpointError(
            f"{folder}: neither {MANIFEST_FILE} nor {DIALOGUE_FILE}, so there is nothing to "
            "compare it with",
            hint="give an export of convo",
        )
