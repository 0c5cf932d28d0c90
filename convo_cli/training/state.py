"""The state of a run: everything that changes during training and that a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING

import torch

from convo_cli.config.schema import EvaluationConfig
from convo_cli.events import EvaluationDone
from convo_cli.metrics.metric_table import goodness
from convo_cli.runs.checkpoints import Progress
from convo_cli.wording import counted

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class TrainState:
    """Model, optimizer, gradient scaler and progress. The loop advances it in place.

    It holds no random state: dropout is seeded by the step, and the order of examples and the
    learning rate are functions of the step.
    """

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress = field(default_factory=Progress)
    run_id: str = ""
    """Identifies the run even if its directory is renamed."""
    is_evaluated: bool = False
    """True if `progress` includes the scores of these weights.

    Not saved: a resume reads them from metrics.jsonl.
    """


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after ``patience`` evaluations in which the score improved by at most ``min_delta``.

    A metric whose best value is that of the real replies improves by coming closer to it.
    """

    metric: str = ""
    """The metric by which the best checkpoint is chosen, besides the loss."""
    patience: int | None = None
    min_delta: float = 0.0
    monitors_metric: bool = False

    @classmethod
    def of(cls, config: EvaluationConfig) -> EarlyStopping:
        """Return the rule of a config."""
        stopping = config.early_stopping
        return cls(
            config.metric, stopping.patience, stopping.min_delta, stopping.monitor == "metric"
        )


def take_scores(state: TrainState, result: EvaluationDone, rule: EarlyStopping) -> EvaluationDone:
    """Update the best scores and the patience of the progress with an evaluation.

    Returns the evaluation with the names of the scores in which these weights are the best so far.
    If the monitored metric is missing (there was too little memory for replies), the patience
    neither shrinks nor is restored.
    """
    progress = state.progress
    loss_gain = _gain("loss", result, result.loss, progress.best_loss)
    metric_gain = _gain(
        rule.metric, result, result.metrics.get(rule.metric), progress.best_metrics.get(rule.metric)
    )
    gain = metric_gain if rule.monitors_metric else loss_gain
    if gain is not None:
        progress.evaluations_without_improvement = (
            0 if gain > rule.min_delta else progress.evaluations_without_improvement + 1
        )
    best = []
    if loss_gain is not None and loss_gain > 0:
        best.append("loss")
        progress.best_loss = result.loss
    if metric_gain is not None and metric_gain > 0:
        best.append("metric")
    better = {
        name: value
        for name, value in result.metrics.items()
        if (_gain(name, result, value, progress.best_metrics.get(name)) or 0) > 0
    }
    progress.best_metrics = {**progress.best_metrics, **better}
    state.is_evaluated = True
    return replace(result, best=tuple(best))


def _gain(
    name: str, result: EvaluationDone, value: float | None, best: float | None
) -> float | None:
    """Return by how much a score is better than the best; None if there is no score."""
    new = None if value is None else goodness(name, value, result.real_scores)
    old = None if best is None else goodness(name, best, result.real_scores)
    if new is None:
        return None
    return inf if old is None else new - old


def reason_it_is_over(progress: Progress, rule: EarlyStopping, max_steps: int) -> str | None:
    """Return the reason why no step is left, or None while there is one."""
    if rule.patience is not None and is_out_of_patience(progress, rule.patience):
        monitored = rule.metric if rule.monitors_metric else "validation loss"
        return f"{monitored} did not improve in {counted(rule.patience, 'evaluation')}"
    if progress.step < max_steps:
        return None
    if progress.step > max_steps:  # of a resume that asks for fewer
        return f"{counted(progress.step, 'step')} done, and training.max_steps is {max_steps:,}"
    return f"all {counted(max_steps, 'step')} done"


def is_out_of_patience(progress: Progress, patience: int | None) -> bool:
    """Return whether early stopping ends the run."""
    return patience is not None and progress.evaluations_without_improvement >= patience
