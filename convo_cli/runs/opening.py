"""Resolution of the user's path to a model folder: a checkpoint of a run, or the path as is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from convo_cli.errors import CheckpointError, DiskError, UsageError, typeable
from convo_cli.events import Emit, Notice
from convo_cli.runs.checkpoints import STATE_FILE
from convo_cli.runs.directory import RunDirectory, require_own_checkpoints
from convo_cli.runs.provenance.run_info import read_run_info
from convo_cli.runs.selection import NoScoreError, Which, find_checkpoint
from convo_cli.storage.sealed import MANIFEST_FILE, verify_directory
from convo_cli.storage.snapshot import Snapshot

_MAX_TRIES = 5
T = TypeVar("T")


def open_checkpoint(path: Path, emit: Emit, which: Which | None = None) -> Snapshot:
    """Return the folder to load a model from: a checkpoint of a run, or the path itself.

    Of a run, ``which`` selects the checkpoint. None selects the best one by loss, or the newest
    intact one if the run was not evaluated or, with a warning, if the best one is damaged, missing
    or uncertain.

    Folders with a manifest are verified; nothing is changed. After loading, call
    `require_unchanged` of the result: it proves that the verified files are those that were loaded.
    UsageError if there is no such folder or ``which`` is given for another folder than a run,
    CheckpointError if it is damaged.
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
        return _select(run, which, emit)
    require_run_for(which, path)
    if os.path.lexists(path / STATE_FILE) or _run_of(path):
        return verify_directory(path)
    if os.path.lexists(path / MANIFEST_FILE):
        # An export: its owner may edit the model card, a hub adds files of its own, and the hub's
        # cache contains links.
        return verify_directory(
            path, may_differ=frozenset({"README.md"}), may_hold_more=True, may_hold_links=True
        )
    return Snapshot.of(path)


def require_run_for(which: Which | None, source: str | Path) -> None:
    """Raise UsageError if a checkpoint is to be selected, but the source is not a run directory."""
    path = Path(source)
    if which is None or RunDirectory(path).is_run:
        return
    what, hint = "not a run directory", "leave out --load"
    if around := _run_of(path):
        what = "a checkpoint already"
        hint = f"{typeable(around)} --load {which} selects one of its run; otherwise {hint}"
    raise UsageError(
        f"--load {which} selects a checkpoint of a run directory, but {source} is {what}", hint=hint
    )


def _select(run: RunDirectory, which: Which | None, emit: Emit) -> Snapshot:
    metric = read_run_info(run).config.evaluation.metric if which == "metric" else ""
    reported = ""
    try:
        found = find_checkpoint(run, which or "loss", metric)
    except (CheckpointError, DiskError) as error:
        if which is not None:
            raise
        found = find_checkpoint(run, "last", "")
        if not isinstance(error, NoScoreError):
            reported = error.message
            instead = f"loading {found.path.name} instead, the newest intact checkpoint"
            emit(Notice(f"{reported}; {instead}", is_warning=True))
    for _, damage in found.damaged:
        if damage.message != reported:
            emit(Notice(f"{damage.message}; loading {found.path.name} instead", is_warning=True))
    return found.files


def load_from(
    path: Path, emit: Emit, load: Callable[[Snapshot], T], which: Which | None = None
) -> T:
    """Open a folder as `open_checkpoint` does, and load it; ChangedError if it changes meanwhile.

    A run that is being trained may prune the checkpoint; then ``which`` selects again, unless
    ``path`` names the checkpoint itself.
    """
    for _ in range(_MAX_TRIES):
        opened = open_checkpoint(path, emit, which)
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
        emit(Notice(f"{deleted}; selecting again"))
    raise CheckpointError(
        f"{path}: its checkpoints are deleted faster than they can be read",
        hint="wait until the run ends; for the next run, raise checkpoints.keep",
    )


def _run_of(checkpoint: Path) -> Path | None:
    """Return the run directory that a folder is a checkpoint of, by the names on its path."""
    for path in (checkpoint, checkpoint.resolve()):
        if path.parent.name == "checkpoints" and RunDirectory(path.parent.parent).is_run:
            return path.parent.parent
    return None
