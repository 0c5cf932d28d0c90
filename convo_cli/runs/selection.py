"""Selection of checkpoints: last, best by loss, best by metric, and those to delete.

Scores come from the evaluations in metrics.jsonl, each of which names the weights that it scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from convo_cli.config.schema import RunConfig
from convo_cli.errors import CheckpointError
from convo_cli.events import EvaluationDone
from convo_cli.runs.checkpoints import (
    STATE_FILE,
    Checkpoint,
    list_checkpoints,
    newest_whole,
    read_checkpoint,
)
from convo_cli.runs.directory import RunDirectory, require_own_checkpoints
from convo_cli.runs.logs.evaluations import (
    Evaluations,
    best_known,
    evaluation_record,
    goodness_of,
    read_evaluations,
    score_of,
    weights_of,
)
from convo_cli.storage.atomic import disk_errors, remove_directory, write_file
from convo_cli.storage.files import read_file
from convo_cli.storage.sealed import has_all_files, verify_directory, verify_file
from convo_cli.storage.snapshot import Snapshot

Which = Literal["last", "loss", "metric"]
_Score = Literal["loss", "metric"]
_USE_LAST = "use --load last"
_USE_LOSS = "use --load loss; a metric needs evaluation.reply_dialogues above 0"
_LABELS: dict[Which, str] = {"last": "last", "loss": "best-loss", "metric": "best-metric"}


class SavedCheckpoint(BaseModel):
    """A checkpoint and its scores, in a pointer."""

    checkpoint: str
    step: int
    evaluation: dict[str, Any] | None
    """The record of its evaluation in metrics.jsonl."""


class SavedPointer(SavedCheckpoint):
    """Content of last.json, best-loss.json and best-metric.json."""

    next_best: tuple[SavedCheckpoint, ...] = ()
    """The other checkpoints that ``checkpoints.keep_best`` keeps, in the file of their score."""


class NoScoreError(CheckpointError):
    """No checkpoint of the run has a score, and none is lost."""


@dataclass(frozen=True, slots=True)
class Found:
    """A selected checkpoint, verified, and the newer ones that are not used."""

    path: Path
    step: int
    files: Snapshot
    """A snapshot of the files from before they were verified."""
    damaged: tuple[tuple[Path, CheckpointError], ...]
    """Newer checkpoints that were skipped because they are damaged, each with the reason."""
    later: tuple[int, ...]
    """Steps of newer checkpoints that were not chosen."""


def find_checkpoint(run: RunDirectory, which: Which, metric: str) -> Found:
    """Find and verify the checkpoint that ``which`` selects; nothing is changed.

    A run that is being trained may add and delete checkpoints meanwhile. For last, damaged newer
    checkpoints are skipped. A best one that is damaged, missing or uncertain raises
    CheckpointError; no other takes its place.
    """
    if which == "last":
        chosen, damaged = newest_whole(run)
        return Found(chosen.path, chosen.progress.step, chosen.files, tuple(damaged), ())
    require_own_checkpoints(run)
    while True:
        steps = run.checkpoint_steps()
        try:
            best = best_checkpoint(run, steps, which, metric, read_evaluations(run))
            verify_directory(best.path)
        except CheckpointError as error:
            if run.checkpoint_steps() == steps:
                hint = error.hint if isinstance(error, NoScoreError) else _USE_LAST
                raise type(error)(error.message, hint=hint) from error
        else:
            step = best.progress.step
            later = tuple(other for other in run.checkpoint_steps() if other > step)
            return Found(best.path, step, best.files, (), later)


def point_and_prune(
    run: RunDirectory,
    newest: Path,
    config: RunConfig,
    evaluations: Mapping[int, EvaluationDone],
    *,
    prunes: bool = True,
) -> dict[str, Path]:
    """Write the pointers; delete all checkpoints but the newest and the best ones of the config.

    ``newest`` was sealed or verified before, so at least one intact checkpoint always remains.
    Damaged ones are neither counted nor deleted. With ``prunes`` False, nothing is deleted.
    """
    checkpoints = list_checkpoints(run)
    whole = [checkpoint for checkpoint in checkpoints if has_all_files(checkpoint.path)]
    monitor, metric = config.evaluation.early_stopping.monitor, config.evaluation.metric
    best = _ranked(whole, monitor, metric, evaluations)[: config.checkpoints.keep_best]
    pointed: dict[str, Path] = {}
    for which, label in _LABELS.items():
        chosen = next(iter(_ranked(checkpoints, which, metric, evaluations)), None)
        if chosen is None:
            with disk_errors(run.pointer(label)):
                run.pointer(label).unlink(missing_ok=True)
            continue
        pointed[label] = chosen.path
        others = [other for other in best if other.path != chosen.path] if which == monitor else []
        pointer = SavedPointer(
            **_saved(run, chosen, evaluations).model_dump(),
            next_best=tuple(_saved(run, other, evaluations) for other in others),
        )
        text = pointer.model_dump_json(indent=2) + "\n"
        # Most saves leave the best unchanged, and a flush is not free.
        if not _holds(run.pointer(label), text):
            write_file(run.pointer(label), text)
    kept = {newest, *pointed.values()}
    kept.update(checkpoint.path for checkpoint in (*whole[-config.checkpoints.keep :], *best))
    for checkpoint in whole:
        if prunes and checkpoint.path not in kept:
            remove_directory(checkpoint.path, below=run.path)
    return pointed


def _saved(
    run: RunDirectory, checkpoint: Checkpoint, evaluations: Mapping[int, EvaluationDone]
) -> SavedCheckpoint:
    evaluation = evaluation_of_weights(checkpoint, evaluations)
    return SavedCheckpoint(
        checkpoint=checkpoint.path.relative_to(run.path).as_posix(),
        step=checkpoint.progress.step,
        evaluation=None if evaluation is None else evaluation_record(evaluation),
    )


def best_checkpoint(
    run: RunDirectory, steps: Sequence[int], which: _Score, metric: str, known: Evaluations
) -> Checkpoint:
    """Return the best checkpoint of ``steps``, which are all that the run has; no tensor is read.

    CheckpointError if the run may have had a better one, NoScoreError if it had no scores.
    """
    for step in steps:  # a damaged state.json could select other weights unnoticed
        verify_file(run.checkpoint(step) / STATE_FILE)
    checkpoints = [read_checkpoint(run, step) for step in steps]
    for checkpoint in checkpoints:
        if checkpoint.progress.step in known.by_step and not evaluation_of_weights(
            checkpoint, known.by_step
        ):
            raise CheckpointError(
                f"{checkpoint.path}: its weights are not those that {run.metrics} has scores for"
            )
    best = next(iter(_ranked(checkpoints, which, metric, known.by_step)), None)
    newest = checkpoints[-1] if checkpoints else None
    before = None if newest is None else best_known(newest.progress, known, which, metric)
    chosen = None if best is None else evaluation_of_weights(best, known.by_step)
    name = "loss" if which == "loss" else metric
    score = None if chosen is None else score_of(chosen, name)
    is_lost = before is not None and (
        score is None or known.goodness(name, score) < known.goodness(name, before)
    )
    if known.damaged and (
        is_lost or newest is None or not evaluation_of_weights(newest, known.by_step)
    ):
        raise CheckpointError(
            f"{known.damaged[0]}: damaged, so it is not certain which checkpoint has the best "
            f"{which}"
        )
    if is_lost:
        left = "no other has a score"
        if best is not None:
            left = f"the best of the others is {best.path.name}, {score:g}"
        raise CheckpointError(
            f"{run.path}: the checkpoint with the best validation {which}, {before:g}, is "
            f"missing; {left}"
        )
    if best is None:
        hint = _USE_LOSS if which == "metric" and known.by_step else _USE_LAST
        raise NoScoreError(f"{run.path}: no checkpoint has a validation {which}", hint=hint)
    return best


def _holds(file: Path, text: str) -> bool:
    try:
        return read_file(file) == text.encode()
    except OSError:
        return False


def _ranked(
    checkpoints: Sequence[Checkpoint],
    which: Which,
    metric: str,
    evaluations: Mapping[int, EvaluationDone],
) -> list[Checkpoint]:
    """Return the checkpoints whose own weights have a score: the best first, of equals the earlier.

    For last, all of them: the newest first. ``checkpoints`` are in the order of their steps.
    """
    if which == "last":
        return [*checkpoints[::-1]]
    name = "loss" if which == "loss" else metric
    scored = []
    for checkpoint in checkpoints:
        evaluation = evaluation_of_weights(checkpoint, evaluations)
        if evaluation and (score := goodness_of(evaluation, name)) is not None:
            scored.append((-score, checkpoint))
    return [checkpoint for _, checkpoint in sorted(scored, key=lambda pair: pair[0])]


def evaluation_of_weights(
    checkpoint: Checkpoint, evaluations: Mapping[int, EvaluationDone]
) -> EvaluationDone | None:
    """Return the evaluation of exactly these weights."""
    evaluation = evaluations.get(checkpoint.progress.step)
    if evaluation and evaluation.weights == weights_of(checkpoint.path) != "":
        return evaluation
    return None
