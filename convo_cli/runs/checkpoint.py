"""Which checkpoints a run has, what each one's state.json says, and which of them last, loss and metric mean.

Nothing here reads tensors; `convo_cli.training.checkpoint` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from convo_cli.errors import CheckpointError, UsageError
from convo_cli.events import Notice, Report
from convo_cli.runs.atomic import (
    MANIFEST_FILE,
    disk_errors,
    remove_directory,
    verify_directory,
    verify_file,
    write_file,
)
from convo_cli.runs.layout import RunDirectory

Which = Literal["last", "loss", "metric"]
STATE_FILE = "state.json"
_LABELS: dict[Which, str] = {"last": "last", "loss": "best-loss", "metric": "best-metric"}


class Scores(BaseModel):
    """What an evaluation said about the weights of one step."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    loss: float
    metric: float | None = None


class Progress(BaseModel):
    """The numbers of a run so far."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_assignment=True)

    step: int = 0
    """Finished optimizer updates."""
    tokens_seen: int = 0
    elapsed_seconds: float = 0.0
    scores: Scores | None = None
    """Scores of exactly these weights; None until they are evaluated."""
    best_loss: float | None = None
    best_metric: float | None = None
    evaluations_without_improvement: int = 0


class SavedState(BaseModel):
    """state.json."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    progress: Progress
    scaler: dict[str, int | float]


class SavedPointer(Progress):
    """last.json and its like: which checkpoint, and the progress it holds."""

    checkpoint: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk and what its state.json says."""

    path: Path
    progress: Progress


def list_checkpoints(run: RunDirectory) -> list[Checkpoint]:
    """The run's checkpoints with a readable state.json, oldest first."""
    found = []
    for step in run.checkpoint_steps():
        path = run.checkpoint(step)
        try:
            found.append(Checkpoint(path, read_state(path).progress))
        except CheckpointError:
            continue
    return found


def find_checkpoint(run: RunDirectory, which: Which, report: Report) -> Checkpoint:
    """The whole, verified checkpoint that ``which`` means.

    A damaged newest one is passed over with a warning; a damaged best one is an error, never silently another.
    """
    if which == "last":
        for step in reversed(run.checkpoint_steps()):
            path = run.checkpoint(step)
            try:
                verify_directory(path)
                return Checkpoint(path, read_state(path).progress)
            except CheckpointError as error:
                report(Notice(f"{error.message}; trying the checkpoint before it", is_warning=True))
        raise CheckpointError(
            f"{run.path}: there is no whole checkpoint to load",
            hint="copy the checkpoints again from where they are whole, or train again under another --set name=…",
        )
    try:
        chosen = _choose(_trusted_checkpoints(run), which)
        if chosen is None:
            raise CheckpointError(f"{run.path}: no checkpoint has a validation {which} yet")
        verify_directory(chosen.path)
    except CheckpointError as error:
        raise CheckpointError(error.message, hint="use --load last") from error
    return chosen


def open_checkpoint(path: Path, report: Report) -> Path:
    """The folder to load a model from: the newest checkpoint of a run directory, else the folder itself.

    Folders with a manifest are verified. UsageError where there is no such folder, CheckpointError where it is damaged.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory")
    if not path.is_dir():
        raise UsageError(f"{path}: not a directory", hint="give a run directory, a checkpoint or an exported model")
    run = RunDirectory(path)
    if run.is_run:
        return find_checkpoint(run, "last", report).path
    if (path / STATE_FILE).is_file():
        verify_directory(path)
    elif (path / MANIFEST_FILE).is_file():
        # An export: its owner may write the card, and a hub adds files of its own.
        verify_directory(path, may_differ=frozenset({"README.md"}), may_hold_more=True)
    return path


def is_saved(run: RunDirectory, progress: Progress) -> bool:
    """Whether the run has a checkpoint with exactly this progress, scores included."""
    try:
        return read_state(run.checkpoint(progress.step)).progress == progress
    except CheckpointError:
        return False


def read_state(path: Path) -> SavedState:
    """state.json of a checkpoint; CheckpointError where it is missing or not what convo writes."""
    file = path / STATE_FILE
    try:
        return SavedState.model_validate_json(file.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror}") from error
    except ValidationError as error:
        raise CheckpointError(f"{file}: not a readable state ({error.errors()[0]['msg']})") from error


def point_and_prune(run: RunDirectory, *, keep: int) -> dict[str, Path]:
    """Write last.json, best-loss.json and best-metric.json; keep the newest ``keep`` checkpoints and the best ones."""
    checkpoints = list_checkpoints(run)
    labels: dict[str, Path] = {}
    for which, label in _LABELS.items():
        chosen = _choose(checkpoints, which)
        if chosen is None:
            with disk_errors(run.pointer(label)):
                run.pointer(label).unlink(missing_ok=True)
            continue
        labels[label] = chosen.path
        name = chosen.path.relative_to(run.path).as_posix()
        pointer = SavedPointer(checkpoint=name, **chosen.progress.model_dump())
        write_file(run.pointer(label), pointer.model_dump_json(indent=2) + "\n")
    wanted = {checkpoint.path for checkpoint in checkpoints[-keep:]} | set(labels.values())
    for checkpoint in checkpoints:
        if checkpoint.path not in wanted:
            remove_directory(checkpoint.path)
    return labels


def _trusted_checkpoints(run: RunDirectory) -> list[Checkpoint]:
    """All of them, or CheckpointError: a state.json that is damaged would choose other weights in silence."""
    paths = [run.checkpoint(step) for step in run.checkpoint_steps()]
    for path in paths:
        verify_file(path / STATE_FILE)
    return [Checkpoint(path, read_state(path).progress) for path in paths]


def _choose(checkpoints: list[Checkpoint], which: Which) -> Checkpoint | None:
    """By the scores of each checkpoint's own weights; of equals the earlier."""
    if which == "last":
        return checkpoints[-1] if checkpoints else None
    scored: list[tuple[float, Checkpoint]] = []
    for checkpoint in checkpoints:
        scores = checkpoint.progress.scores
        score = None if scores is None else getattr(scores, which)
        if score is not None:
            scored.append((score, checkpoint))
    best = min if which == "loss" else max
    return best(scored, key=lambda pair: pair[0])[1] if scored else None
