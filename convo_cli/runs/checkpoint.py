"""Which checkpoints a run has, what each one's state.json says, and which of them last, loss and metric mean.

Nothing here reads tensors; `convo_cli.training.checkpoint` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convo_cli.errors import CheckpointError, DiskError, UsageError
from convo_cli.events import Notice, Report
from convo_cli.runs.atomic import (
    MANIFEST_FILE,
    disk_errors,
    has_all_files,
    remove_directory,
    set_aside,
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

    step: int = Field(0, ge=0)
    """Finished optimizer updates."""
    tokens_seen: int = Field(0, ge=0)
    elapsed_seconds: float = Field(0.0, ge=0.0)
    scores: Scores | None = None
    """Scores of exactly these weights; None until they are evaluated."""
    best_loss: float | None = None
    best_metric: float | None = None
    evaluations_without_improvement: int = Field(0, ge=0)


class SavedState(BaseModel):
    """state.json."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1
    run_id: str = ""
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


def require_own_checkpoints(run: RunDirectory) -> None:
    """Raise CheckpointError where checkpoints/ is a link: what is saved and deleted stays inside the run."""
    if run.checkpoints.is_symlink():
        raise CheckpointError(
            f"{run.checkpoints}: a symbolic link, and a run's checkpoints are written and deleted only inside it",
            hint="move the whole run directory to the other place instead, and link to that if you like",
        )


def list_checkpoints(run: RunDirectory) -> list[Checkpoint]:
    """The run's checkpoints with a readable state.json, oldest first."""
    found = []
    for step in run.checkpoint_steps():
        try:
            found.append(_read_checkpoint(run, step))
        except CheckpointError:
            continue
    return found


def find_checkpoint(run: RunDirectory, which: Which, report: Report) -> Checkpoint:
    """The whole, verified checkpoint that ``which`` means, for whoever holds the run's lock.

    A damaged newest one is set aside with a warning, and last is the one before it; a best one that is damaged or gone
    is an error, never silently another.
    """
    if which == "last":
        chosen, damaged = _newest_whole(run)
        for path, error in damaged:
            name = set_aside(path).name
            report(Notice(f"{error.message}; set aside as {name}, going back to {chosen.path.name}", is_warning=True))
        return chosen
    try:
        checkpoints = _trusted_checkpoints(run)
        best = _choose(checkpoints, which)
        if best is None:
            raise CheckpointError(f"{run.path}: no checkpoint has a validation {which} yet")
        _require_best_of_all(run, best, checkpoints[-1].progress, which)
        verify_directory(best.path)
    except CheckpointError as error:
        raise CheckpointError(error.message, hint="use --load last") from error
    return best


def open_checkpoint(path: Path, report: Report) -> Path:
    """The folder to load a model from: the newest whole checkpoint of a run directory, else the folder itself.

    Folders with a manifest are verified; nothing is changed. UsageError where there is no such folder, CheckpointError
    where it is damaged.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or directory")
    if not path.is_dir():
        raise UsageError(f"{path}: not a directory", hint="give a run directory, a checkpoint or an exported model")
    run = RunDirectory(path)
    if run.is_run:
        chosen, damaged = _newest_whole(run)
        for _, error in damaged:
            report(Notice(f"{error.message}; {chosen.path.name} is opened instead", is_warning=True))
        return chosen.path
    if (path / STATE_FILE).is_file() or _is_inside_a_run(path):
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
    except PermissionError as error:
        raise DiskError(f"{file}: {error.strerror}") from error
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror}") from error
    except ValidationError as error:
        raise CheckpointError(f"{file}: not a readable state ({error.errors()[0]['msg']})") from error


def point_and_prune(run: RunDirectory, newest: Path, *, keep: int) -> dict[str, Path]:
    """Write last.json, best-loss.json and best-metric.json; keep the newest ``keep`` checkpoints and the best ones.

    ``newest`` was sealed a moment ago, so that one whole checkpoint stays whatever happened to the others. A damaged
    one is neither counted nor deleted.
    """
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
        pointer = SavedPointer(checkpoint=name, **chosen.progress.model_dump()).model_dump_json(indent=2) + "\n"
        if not _holds(run.pointer(label), pointer):  # most saves leave the best as they are, and a flush is not free
            write_file(run.pointer(label), pointer)
    whole = [checkpoint.path for checkpoint in checkpoints if has_all_files(checkpoint.path)]
    for path in whole:
        if path not in {newest, *whole[-keep:], *labels.values()}:
            remove_directory(path)
    return labels


def _newest_whole(run: RunDirectory) -> tuple[Checkpoint, list[tuple[Path, CheckpointError]]]:
    """The newest checkpoint that verifies, and the damaged ones that come after it, each with what is wrong."""
    damaged: list[tuple[Path, CheckpointError]] = []
    for step in reversed(run.checkpoint_steps()):
        path = run.checkpoint(step)
        try:
            verify_directory(path)
            return _read_checkpoint(run, step), damaged
        except CheckpointError as error:
            damaged.append((path, error))
    raise CheckpointError(
        f"{run.path}: there is no whole checkpoint to load" + "".join(f"; {error.message}" for _, error in damaged),
        hint="copy the checkpoints again from where they are whole, or train again under another --set name=…",
    )


def _read_checkpoint(run: RunDirectory, step: int) -> Checkpoint:
    path = run.checkpoint(step)
    progress = read_state(path).progress
    if progress.step != step:
        raise CheckpointError(f"{path / STATE_FILE}: the state of step {progress.step}, under the name of another")
    return Checkpoint(path, progress)


def _trusted_checkpoints(run: RunDirectory) -> list[Checkpoint]:
    """All of them, or CheckpointError: a state.json that is damaged would choose other weights in silence."""
    steps = run.checkpoint_steps()
    for step in steps:
        verify_file(run.checkpoint(step) / STATE_FILE)
    return [_read_checkpoint(run, step) for step in steps]


def _require_best_of_all(
    run: RunDirectory, best: Checkpoint, newest: Progress, which: Literal["loss", "metric"]
) -> None:
    """Raise CheckpointError where the run has seen a better score than those of the checkpoints that are left."""
    known = newest.best_loss if which == "loss" else newest.best_metric
    score = _score(best, which)
    if known is None or score is None:
        return
    if score > known if which == "loss" else score < known:
        raise CheckpointError(
            f"{run.path}: the checkpoint with the best validation {which}, {known:g}, is not there any more; "
            f"of those left {best.path.name} has the best, {score:g}"
        )


def _holds(file: Path, text: str) -> bool:
    try:
        return file.read_bytes() == text.encode()
    except OSError:
        return False


def _is_inside_a_run(path: Path) -> bool:
    real = path.resolve()
    return real.parent.name == "checkpoints" and RunDirectory(real.parent.parent).is_run


def _choose(checkpoints: list[Checkpoint], which: Which) -> Checkpoint | None:
    """By the scores of each checkpoint's own weights; of equals the earlier."""
    if which == "last":
        return checkpoints[-1] if checkpoints else None
    scored = [(score, checkpoint) for checkpoint in checkpoints if (score := _score(checkpoint, which)) is not None]
    best = min if which == "loss" else max
    return best(scored, key=lambda pair: pair[0])[1] if scored else None


def _score(checkpoint: Checkpoint, which: Literal["loss", "metric"]) -> float | None:
    scores = checkpoint.progress.scores
    if scores is None:
        return None
    return scores.loss if which == "loss" else scores.metric
