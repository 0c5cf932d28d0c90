"""A loaded checkpoint compared with its run: its own score, and the best checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from convo_cli.errors import CheckpointError, DiskError
from convo_cli.events import BestScore
from convo_cli.runs.checkpoints import list_checkpoints
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.evaluations import better_scores, read_evaluations, weights_of
from convo_cli.runs.opening import run_of


@dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """A checkpoint of a run, with scores from the run's log that belong to its weights."""

    path: Path
    step: int
    is_last: bool
    loss: float | None
    """Validation loss; None if these weights were not evaluated."""
    better: tuple[BestScore, ...]
    """The best scores of the run's other checkpoints, if they are better."""

    def describe(self) -> str:
        """Return a sentence for the user: what was loaded, and how to load a better checkpoint."""
        place = "the last checkpoint of its run" if self.is_last else "not the last checkpoint"
        loss = "not evaluated" if self.loss is None else f"validation loss {self.loss:.3f}"
        parts = [f"loaded {self.path}: {place}, step {self.step}, {loss}"]
        for score in self.better:
            name = "validation loss" if score.name == "loss" else score.name
            other = self.path.parent / RunDirectory(Path()).checkpoint(score.step).name
            parts.append(
                f"the best {name} of the run is {score.value:.3f}, at step {score.step}: to use "
                f"that checkpoint, give {other}"
            )
        return "; ".join(parts)


def find_loaded(folder: Path) -> LoadedCheckpoint | None:
    """Return the checkpoint with its scores; None if it is none or its run is unreadable."""
    info = run_of(folder)
    if info is None:
        return None
    run, metric = RunDirectory(folder.resolve().parent.parent), info.config.evaluation.metric
    try:
        known = read_evaluations(run).by_step
        checkpoints = list_checkpoints(run)
    except (CheckpointError, DiskError):
        return None
    evaluated = {
        checkpoint.progress.step: known[checkpoint.progress.step]
        for checkpoint in checkpoints
        if checkpoint.progress.step in known
        and known[checkpoint.progress.step].weights == weights_of(checkpoint.path) != ""
    }
    steps = [checkpoint.progress.step for checkpoint in checkpoints]
    step = next((s for s in steps if run.checkpoint(s).name == folder.resolve().name), None)
    if step is None:
        return None
    return LoadedCheckpoint(
        path=folder,
        step=step,
        is_last=step == max(steps),
        loss=evaluated[step].loss if step in evaluated else None,
        better=better_scores(evaluated.values(), metric, step),
    )
