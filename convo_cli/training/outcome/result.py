"""The outcome of a run, for the view of `train` and `resume`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convo_cli.events import BestScore, EvaluationDone
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.evaluations import best_scores, better_scores
from convo_cli.runs.logs.final_scores import FinalScores
from convo_cli.training.resume.horizon import settings_to_continue
from convo_cli.training.run_parts import Parts
from convo_cli.training.state import TrainState


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run."""

    run_dir: Path
    step: int
    reason: str
    best_loss: float | None
    best_metric: float | None
    last_loss: float | None
    """Validation loss of the last step; None if it was not evaluated."""
    best: tuple[BestScore, ...]
    """The best scores, each with its step."""
    better: tuple[BestScore, ...]
    """Those of `best` that are better than the scores of the last step."""
    to_continue: tuple[str, ...]
    """Settings for `convo resume --set` with which the run has steps left."""
    test: FinalScores | None
    """Scores on the test data; None without test data or if the run is not finished."""


def result_of(
    run: RunDirectory,
    parts: Parts,
    state: TrainState,
    reason: str,
    evaluations: Mapping[int, EvaluationDone],
    test: FinalScores | None,
) -> RunResult:
    """Return the result of a run that ended for this reason."""
    progress, metric = state.progress, parts.config.evaluation.metric
    last = evaluations.get(progress.step)
    return RunResult(
        run_dir=run.path,
        step=progress.step,
        reason=reason,
        best_loss=progress.best_loss,
        best_metric=progress.best_metrics.get(metric),
        last_loss=None if last is None else last.loss,
        best=best_scores(evaluations.values(), metric),
        better=better_scores(evaluations.values(), metric, progress.step),
        to_continue=settings_to_continue(parts, progress),
        test=test,
    )
