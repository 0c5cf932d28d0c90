"""Resolution of the user's path to a model folder: a run's newest checkpoint, or the path as is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from convo_cli.errors import CheckpointError, DiskError, UsageError
from convo_cli.events import Emit, Notice
from convo_cli.runs.checkpoints import STATE_FILE, newest_whole, read_state
from convo_cli.runs.directory import RunDirectory, require_own_checkpoints
from convo_cli.runs.provenance.run_info import RunInfo, read_run_info
from convo_cli.storage.sealed import MANIFEST_FILE, verify_directory
from convo_cli.storage.snapshot import Snapshot

_MAX_TRIES = 5
T = TypeVar("T")


def open_checkpoint(path: Path, emit: Emit) -> Snapshot:
    """Return the folder to load a model from: a run's newest intact checkpoint, or the path itself.

    Folders with a manifest are verified; nothing is changed. After loading, call
    `require_unchanged` of the result: it proves that the verified files are those that were loaded.
    UsageError if there is no such folder, CheckpointError if it is damaged.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory")
    if not path.is_dir():
        raise UsageError(
            f"{path}: not a directory",
            hint="give a run directory, a checkpoint or an exported model",
        )
    run = RunDirectory(path)
    if path.parent.name == run.checkpoints.name and RunDirectory(path.parent.parent).is_run:
        require_own_checkpoints(RunDirectory(path.parent.parent))
    if run.is_run:
        chosen, damaged = newest_whole(run)
        for _, error in damaged:
            emit(Notice(f"{error.message}; opening {chosen.path.name} instead", is_warning=True))
        return chosen.files
    if os.path.lexists(path / STATE_FILE) or _is_inside_a_run(path):
        return verify_directory(path)
    if os.path.lexists(path / MANIFEST_FILE):
        # An export: its owner may edit the model card, a hub adds files of its own, and the hub's
        # cache contains links.
        return verify_directory(
            path, may_differ=frozenset({"README.md"}), may_hold_more=True, may_hold_links=True
        )
    return Snapshot.of(path)


def load_from(path: Path, emit: Emit, load: Callable[[Snapshot], T]) -> T:
    """Open a folder as `open_checkpoint` does, and load it; ChangedError if it changes meanwhile.

    A run that is being trained may prune the checkpoint; then the newest one is loaded, unless
    ``path`` names the checkpoint itself.
    """
    for _ in range(_MAX_TRIES):
        opened = open_checkpoint(path, emit)
        folder = opened.path
        try:
            loaded = load(opened)
            opened.require_unchanged()
            return loaded
        except Exception as error:
            if folder.exists():
                raise
            if folder == path:
                raise CheckpointError(
                    f"{path}: deleted while it was being read",
                    hint="training deletes old checkpoints; give the run directory instead",
                ) from error
        deleted = f"{folder.name} was deleted by its training run while it was being read"
        emit(Notice(f"{deleted}; opening the newest checkpoint"))
    raise CheckpointError(
        f"{path}: its checkpoints are deleted faster than they can be read",
        hint="wait until the run ends; for the next run, raise checkpoints.keep",
    )


def run_of(checkpoint: Path) -> RunInfo | None:
    """Return run.json of the run that a checkpoint belongs to; None if there is no readable one."""
    real = checkpoint.resolve()
    try:
        info = read_run_info(RunDirectory(real.parent.parent))
        is_of_run = real.parent.name == "checkpoints" and read_state(real).run_id == info.run_id
        return info if is_of_run else None
    except (CheckpointError, DiskError):
        return None


def _is_inside_a_run(path: Path) -> bool:
    real = path.resolve()
    return real.parent.name == "checkpoints" and RunDirectory(real.parent.parent).is_run
