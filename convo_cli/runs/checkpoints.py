"""Checkpoints of a run on disk, and the state.json of each.

This module reads no tensors; `convo_cli.training.saving` does. `convo_cli.runs.selection` chooses
among checkpoints.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convo_cli.errors import CheckpointError, DiskError
from convo_cli.runs.directory import RunDirectory, require_own_checkpoints
from convo_cli.storage.atomic import publish_directory, require_space
from convo_cli.storage.files import UnsafeFileError, copy_file, only_regular, read_file
from convo_cli.storage.sealed import read_manifest, verify_directory
from convo_cli.storage.snapshot import Snapshot
from convo_cli.tokens.phase import Phase

STATE_FILE = "state.json"


class Progress(BaseModel):
    """Progress of a run in numbers.

    A checkpoint stores the progress from before the evaluation of its weights.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_assignment=True)

    step: int = Field(0, ge=0)
    """Finished optimizer updates."""
    tokens_seen: int = Field(0, ge=0)
    elapsed_seconds: float = Field(0.0, ge=0.0)
    best_loss: float | None = None
    best_metrics: dict[str, float] = Field(default_factory=dict)
    """The best value of each metric, by its name."""
    evaluations_without_improvement: int = Field(0, ge=0)
    phases: tuple[Phase, ...] = ()
    """Batch settings of the steps so far; they give the place of the next step in the data."""


class SavedState(BaseModel):
    """state.json."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: Literal[2] = 2
    run_id: str = ""
    progress: Progress
    scaler: dict[str, int | float]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk, with the content of its state.json."""

    path: Path
    progress: Progress
    files: Snapshot
    """A snapshot of the files from before any of them was hashed or read."""


def list_checkpoints(run: RunDirectory) -> list[Checkpoint]:
    """Return the run's checkpoints with a readable state.json, oldest first."""
    found = []
    for step in run.checkpoint_steps():
        try:
            found.append(read_checkpoint(run, step))
        except CheckpointError:
            continue
    return found


def is_saved(run: RunDirectory, step: int) -> bool:
    """Return whether the run has a checkpoint of this step with a readable state.json."""
    try:
        return read_state(run.checkpoint(step)).progress.step == step
    except CheckpointError:
        return False


def read_state(path: Path) -> SavedState:
    """Read state.json of a checkpoint; CheckpointError if it is missing or not in convo's form."""
    file = path / STATE_FILE
    try:
        return SavedState.model_validate_json(read_file(file))
    except UnsafeFileError as error:
        raise CheckpointError(f"{file}: {error.strerror}", hint=error.hint) from error
    except PermissionError as error:
        raise DiskError(f"{file}: {error.strerror}") from error
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["loc"] == ("format",):
            found = json.dumps(problem["input"])[:40]
            raise CheckpointError(
                f"{file}: format {found}, but this version of convo reads format 2",
                hint="open it with the version of convo that wrote it",
            ) from error
        raise CheckpointError(f"{file}: cannot be read ({problem['msg']})") from error


def copy_checkpoint(source: Path, to: Path, run_id: str) -> None:
    """Publish a copy of a checkpoint in another run; CheckpointError if a file changes."""
    saved = read_state(source).model_copy(update={"run_id": run_id})
    copied = {name: seal for name, seal in read_manifest(source).items() if name != STATE_FILE}
    require_space(to, sum(size for size, _ in copied.values()) + len(saved.model_dump_json()))

    def fill(folder: Path) -> None:
        for name in copied:
            copy_file(source / name, folder / name, is_proven=True)
        write_state(folder, saved)

    publish_directory(to, fill)
    for name, seal in read_manifest(to).items():
        if name != STATE_FILE and seal != copied[name]:
            raise CheckpointError(f"{source / name}: changed while it was being copied")


def write_state(folder: Path, saved: SavedState) -> None:
    """Write state.json into a checkpoint that is being created."""
    with open(
        folder / STATE_FILE, "w", encoding="utf-8", newline="\n", opener=only_regular
    ) as file:
        file.write(saved.model_dump_json(indent=2) + "\n")


def newest_whole(run: RunDirectory) -> tuple[Checkpoint, list[tuple[Path, CheckpointError]]]:
    """Return the newest intact checkpoint, and the damaged newer ones, each with the reason.

    A run that is being trained may add and delete checkpoints meanwhile.
    """
    require_own_checkpoints(run)
    damaged: dict[int, tuple[Path, CheckpointError]] = {}
    tried: set[int] = set()
    while untried := set(run.checkpoint_steps()) - tried:
        step = max(untried)
        tried.add(step)
        path = run.checkpoint(step)
        try:
            chosen = read_checkpoint(run, step, verify_directory(path))
            return chosen, [
                damaged[newer] for newer in sorted(damaged, reverse=True) if newer > step
            ]
        except CheckpointError as error:
            if path.exists():
                damaged[step] = path, error
    reasons = (error.message for _, error in damaged.values())
    raise CheckpointError(
        "; ".join([f"{run.path}: no checkpoint is intact", *reasons]),
        hint="restore the checkpoints from a copy, or train again under another --set name=…",
    )


def read_checkpoint(run: RunDirectory, step: int, files: Snapshot | None = None) -> Checkpoint:
    """Read the checkpoint of a step; CheckpointError if state.json is unreadable or does not match.

    ``files`` is a snapshot from before its files were hashed, if they were.
    """
    path = run.checkpoint(step)
    files = files or Snapshot.of(path)
    progress = read_state(path).progress
    if progress.step != step:
        raise CheckpointError(
            f"{path / STATE_FILE}: this is the state of step {progress.step}, not of step {step}"
        )
    return Checkpoint(path, progress, files)
