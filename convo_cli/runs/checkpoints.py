"""Which checkpoints a run has, what each one's state.json says, and which of them last, loss and metric mean.

Scores come from the evaluations in metrics.jsonl. Nothing here reads tensors; `convo_cli.training.saving` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convo_cli.errors import CheckpointError, DiskError
from convo_cli.events import EvaluationDone
from convo_cli.runs.directory import RunDirectory, require_own_checkpoints
from convo_cli.runs.logs.evaluations import evaluation_record, read_evaluations, weights_of
from convo_cli.storage.atomic import disk_errors, publish_directory, remove_directory, require_space, write_file
from convo_cli.storage.files import UnsafeFileError, copy_file, only_regular, read_file
from convo_cli.storage.sealed import has_all_files, read_manifest, verify_directory, verify_file
from convo_cli.storage.snapshot import Snapshot
from convo_cli.tokens.phase import Phase

Which = Literal["last", "loss", "metric"]
STATE_FILE = "state.json"
_LABELS: dict[Which, str] = {"last": "last", "loss": "best-loss", "metric": "best-metric"}


class Progress(BaseModel):
    """The numbers of a run so far. In a checkpoint: before the evaluation of its own weights."""

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
    """The batch settings of the steps so far: where in the data the next step begins follows from them."""


class SavedState(BaseModel):
    """state.json."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: Literal[2] = 2
    run_id: str = ""
    progress: Progress
    scaler: dict[str, int | float]


class SavedPointer(BaseModel):
    """last.json, best-loss.json and best-metric.json: which checkpoint, and its record in metrics.jsonl."""

    checkpoint: str
    step: int
    evaluation: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk and what its state.json says."""

    path: Path
    progress: Progress
    files: Snapshot
    """The files as they were before any of them was hashed or read."""


@dataclass(frozen=True, slots=True)
class Found:
    """The checkpoint to resume from, verified, and the newer ones that are not used."""

    path: Path
    step: int
    files: Snapshot
    """The files as they were before they were verified."""
    damaged: tuple[tuple[Path, CheckpointError], ...]
    """Newer ones that were passed over because they are damaged, each with the reason."""
    later: tuple[int, ...]
    """Steps of newer ones that were not chosen."""


def list_checkpoints(run: RunDirectory) -> list[Checkpoint]:
    """The run's checkpoints with a readable state.json, oldest first."""
    found = []
    for step in run.checkpoint_steps():
        try:
            found.append(_read_checkpoint(run, step))
        except CheckpointError:
            continue
    return found


def find_checkpoint(run: RunDirectory, which: Which, metric: str) -> Found:
    """The whole, verified checkpoint that ``which`` means; nothing is changed. The caller holds the run's lock.

    For last, damaged newest ones are passed over. A best one that is damaged, missing or uncertain raises
    CheckpointError; another is never taken for it.
    """
    if which == "last":
        chosen, damaged = newest_whole(run)
        return Found(chosen.path, chosen.progress.step, chosen.files, tuple(damaged), ())
    try:
        best = _best_of_all(run, which, metric)
        verify_directory(best.path)
    except CheckpointError as error:
        raise CheckpointError(error.message, hint="use --load last") from error
    step = best.progress.step
    return Found(best.path, step, best.files, (), tuple(later for later in run.checkpoint_steps() if later > step))


def is_saved(run: RunDirectory, step: int) -> bool:
    """Whether the run has a checkpoint of this step."""
    try:
        return read_state(run.checkpoint(step)).progress.step == step
    except CheckpointError:
        return False


def read_state(path: Path) -> SavedState:
    """state.json of a checkpoint; CheckpointError where it is missing or not what convo writes."""
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
            raise CheckpointError(
                f"{file}: format {problem['input']!r}, but this convo reads format 2",
                hint="open it with the convo that wrote it",
            ) from error
        raise CheckpointError(f"{file}: not a readable state ({problem['msg']})") from error


def copy_checkpoint(source: Path, to: Path, run_id: str) -> None:
    """Publish the same checkpoint as one of another run; CheckpointError where a file changed meanwhile."""
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
    """Write state.json into a checkpoint that is being made."""
    with open(folder / STATE_FILE, "w", encoding="utf-8", newline="\n", opener=only_regular) as file:
        file.write(saved.model_dump_json(indent=2) + "\n")


def point_and_prune(
    run: RunDirectory, newest: Path, *, keep: int, metric: str, evaluations: Mapping[int, EvaluationDone]
) -> dict[str, Path]:
    """Write last.json, best-loss.json and best-metric.json; keep the newest ``keep`` checkpoints and the best ones.

    ``newest`` was sealed or verified before, so that one whole checkpoint always stays. A damaged one is neither
    counted nor deleted.
    """
    checkpoints = list_checkpoints(run)
    labels: dict[str, Path] = {}
    for which, label in _LABELS.items():
        chosen = _choose(checkpoints, which, metric, evaluations)
        if chosen is None:
            with disk_errors(run.pointer(label)):
                run.pointer(label).unlink(missing_ok=True)
            continue
        labels[label] = chosen.path
        evaluation = _evaluation_of(chosen, evaluations)
        pointer = SavedPointer(
            checkpoint=chosen.path.relative_to(run.path).as_posix(),
            step=chosen.progress.step,
            evaluation=None if evaluation is None else evaluation_record(evaluation),
        )
        text = pointer.model_dump_json(indent=2) + "\n"
        if not _holds(run.pointer(label), text):  # most saves leave the best as they are, and a flush is not free
            write_file(run.pointer(label), text)
    whole = [checkpoint.path for checkpoint in checkpoints if has_all_files(checkpoint.path)]
    for path in whole:
        if path not in {newest, *whole[-keep:], *labels.values()}:
            remove_directory(path, below=run.path)
    return labels


def newest_whole(run: RunDirectory) -> tuple[Checkpoint, list[tuple[Path, CheckpointError]]]:
    """The newest checkpoint that verifies, and the damaged newer ones, each with the reason.

    A run that trains meanwhile may add and delete checkpoints.
    """
    require_own_checkpoints(run)
    damaged: dict[int, tuple[Path, CheckpointError]] = {}
    tried: set[int] = set()
    while untried := set(run.checkpoint_steps()) - tried:
        step = max(untried)
        tried.add(step)
        path = run.checkpoint(step)
        try:
            chosen = _read_checkpoint(run, step, verify_directory(path))
            return chosen, [damaged[newer] for newer in sorted(damaged, reverse=True) if newer > step]
        except CheckpointError as error:
            if path.exists():
                damaged[step] = path, error
    raise CheckpointError(
        f"{run.path}: there is no whole checkpoint to load" + "".join(f"; {e.message}" for _, e in damaged.values()),
        hint="copy the checkpoints again from where they are whole, or train again under another --set name=…",
    )


def _read_checkpoint(run: RunDirectory, step: int, files: Snapshot | None = None) -> Checkpoint:
    path = run.checkpoint(step)
    files = files or Snapshot.of(path)
    progress = read_state(path).progress
    if progress.step != step:
        raise CheckpointError(f"{path / STATE_FILE}: the state of step {progress.step}, under the name of another")
    return Checkpoint(path, progress, files)


def _trusted_checkpoints(run: RunDirectory) -> list[Checkpoint]:
    """All of them, or CheckpointError: a state.json that is damaged would choose other weights in silence."""
    steps = run.checkpoint_steps()
    for step in steps:
        verify_file(run.checkpoint(step) / STATE_FILE)
    return [_read_checkpoint(run, step) for step in steps]


def _best_of_all(run: RunDirectory, which: Literal["loss", "metric"], metric: str) -> Checkpoint:
    """The best checkpoint, or CheckpointError where it is not certain that the run never had a better one."""
    checkpoints = _trusted_checkpoints(run)
    known = read_evaluations(run)
    for checkpoint in checkpoints:
        if checkpoint.progress.step in known.by_step and not _evaluation_of(checkpoint, known.by_step):
            raise CheckpointError(f"{checkpoint.path}: its weights are not those that {run.metrics} has scores of")
    best = _choose(checkpoints, which, metric, known.by_step)
    newest = checkpoints[-1] if checkpoints else None
    before = None
    if newest is not None:  # what it knew when it was saved
        before = newest.progress.best_loss if which == "loss" else newest.progress.best_metrics.get(metric)
    score = None if best is None else _score(best, which, metric, known.by_step)
    is_lost = before is not None and (score is None or (score > before if which == "loss" else score < before))
    if known.damaged and (is_lost or newest is None or not _evaluation_of(newest, known.by_step)):
        raise CheckpointError(
            f"{known.damaged[0]}: damaged, so it is not certain which checkpoint has the best {which}"
        )
    if is_lost:
        left = (
            "none of those here has a score"
            if best is None
            else f"the best of those here is {best.path.name}, {score:g}"
        )
        raise CheckpointError(
            f"{run.path}: the checkpoint with the best validation {which}, {before:g}, is not here; {left}"
        )
    if best is None:
        raise CheckpointError(f"{run.path}: no checkpoint has a validation {which} yet")
    return best


def _holds(file: Path, text: str) -> bool:
    try:
        return read_file(file) == text.encode()
    except OSError:
        return False


def _choose(
    checkpoints: Sequence[Checkpoint], which: Which, metric: str, evaluations: Mapping[int, EvaluationDone]
) -> Checkpoint | None:
    """By the scores of each checkpoint's own weights; of equals the earlier."""
    if which == "last":
        return checkpoints[-1] if checkpoints else None
    scores = [(_score(checkpoint, which, metric, evaluations), checkpoint) for checkpoint in checkpoints]
    scored = [(score, checkpoint) for score, checkpoint in scores if score is not None]
    best = min if which == "loss" else max
    return best(scored, key=lambda pair: pair[0])[1] if scored else None


def _score(
    checkpoint: Checkpoint, which: Literal["loss", "metric"], metric: str, evaluations: Mapping[int, EvaluationDone]
) -> float | None:
    evaluation = _evaluation_of(checkpoint, evaluations)
    if evaluation is None:
        return None
    return evaluation.loss if which == "loss" else evaluation.metrics.get(metric)


def _evaluation_of(checkpoint: Checkpoint, evaluations: Mapping[int, EvaluationDone]) -> EvaluationDone | None:
    """The evaluation of exactly these weights."""
    evaluation = evaluations.get(checkpoint.progress.step)
    return evaluation if evaluation and evaluation.weights == weights_of(checkpoint.path) != "" else None
