"""What `convo train` does to the weights. Read this file first.

A step is one optimizer update over a fixed number of examples, in as many micro-batches as memory asks for:

    loss of a step = summed nll of all its target tokens / their number

over the whole step, so that cutting it into other micro-batches changes nothing but rounding. The learning rate, the
examples and the dropout of a step are functions of its number alone: a resumed run repeats them exactly. Nothing here
prints, opens a file or knows a config; what happens is reported as events.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from convo_cli.errors import DivergedError
from convo_cli.events import Emit, EvaluationDone, StepDone
from convo_cli.model.loss import Batch
from convo_cli.runs.checkpoints import Progress
from convo_cli.training.state import TrainState

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STOPPED = "stopped on request"


class StepDivergedError(DivergedError):
    """A step's own loss or gradient is not finite; weights and progress are those of the step before it."""


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after ``patience`` evaluations that did not better the monitored score by more than ``min_delta``."""

    patience: int | None
    monitors_metric: bool
    min_delta: float


@dataclass(frozen=True)
class Plan:
    """What the loop needs beside the state: functions of the step, and the few constants of the run."""

    max_steps: int
    seed: int
    device: torch.device
    max_grad_norm: float | None
    metric: str
    early_stopping: EarlyStopping
    micro_batches: Callable[[int], Sequence[Batch]]
    nll_sum: Callable[[PreTrainedModel, Batch], torch.Tensor]
    flops_of: Callable[[Batch], float]
    peak_memory: Callable[[], int]
    learning_rate: Callable[[int], float]
    epoch: Callable[[int], float]
    """Epochs that are over after so many steps."""
    autocast: Callable[[], AbstractContextManager[None]]
    is_evaluation_due: Callable[[int], bool]
    is_save_due: Callable[[int], bool]
    evaluate: Callable[[TrainState], EvaluationDone | None]
    """None where a stop was requested before it was done."""
    save: Callable[[TrainState], None]
    """Publish a checkpoint of the step unless there is one, and bring up to date which checkpoints are the best."""
    is_stop_requested: Callable[[], bool]


@dataclass(frozen=True)
class StepOutcome:
    """What one update measured."""

    loss: float
    grad_norm: float
    learning_rate: float
    num_tokens: int
    num_targets: int
    flops: float
    waiting_seconds: float = field(compare=False)


def train(state: TrainState, plan: Plan, emit: Emit) -> str:
    """Advance the state until the run ends, and say why it ended.

    Raises StepDivergedError with the weights of the last good step in place.
    """
    progress = state.progress
    while True:
        has_new_scores = False
        if not state.is_evaluated and plan.is_evaluation_due(progress.step):
            plan.save(state)  # first: an evaluation that fails or is killed loses no step
            result = None if plan.is_stop_requested() else plan.evaluate(state)
            if result is None:
                return STOPPED  # at once; the resumed run begins with this evaluation
            emit(take_scores(state, result, plan))
            has_new_scores = True
        reason = reason_it_is_over(state, plan) or (STOPPED if plan.is_stop_requested() else None)
        if reason or has_new_scores or plan.is_save_due(progress.step):
            plan.save(state)
        if reason:
            return reason

        started = time.perf_counter()
        outcome = train_step(state, plan)
        seconds = time.perf_counter() - started
        progress.step += 1
        progress.tokens_seen += outcome.num_tokens
        progress.elapsed_seconds += seconds
        state.is_evaluated = False
        emit(
            StepDone(
                step=progress.step,
                max_steps=plan.max_steps,
                epoch=plan.epoch(progress.step),
                loss=outcome.loss,
                learning_rate=outcome.learning_rate,
                grad_norm=outcome.grad_norm,
                num_tokens=outcome.num_tokens,
                num_targets=outcome.num_targets,
                seconds=seconds,
                tokens_seen=progress.tokens_seen,
                waiting_seconds=outcome.waiting_seconds,
                flops=outcome.flops,
                memory_bytes=plan.peak_memory(),
            )
        )


def train_step(state: TrainState, plan: Plan) -> StepOutcome:
    """One optimizer update. A loss or gradient that is not finite raises before any weight is touched."""
    step = state.progress.step
    learning_rate = plan.learning_rate(step)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    started = time.perf_counter()
    batches = plan.micro_batches(step)
    waiting = time.perf_counter() - started
    while True:
        torch.manual_seed(step_seed(plan.seed, step))
        loss, grad_norm = accumulate_gradients(state, plan, batches)
        if not math.isfinite(loss):
            raise StepDivergedError(
                f"step {step + 1}: the loss is {loss}; the weights are those of step {step}",
                hint="lower training.learning_rate, add training.warmup_steps, or check the data",
            )
        if math.isfinite(grad_norm):
            break
        if not state.scaler.is_enabled() or state.scaler.get_scale() <= 1.0:
            raise StepDivergedError(
                f"step {step + 1}: the gradient is {grad_norm} (loss {loss:.4g}); the weights are those of step {step}",
                hint="lower training.learning_rate, or set training.precision to bf16 or fp32",
            )
        state.scaler.update()  # fp16 overflowed: halve the scale and repeat, so that every step is one update
    state.scaler.step(state.optimizer)
    state.scaler.update()
    num_tokens = sum(batch.num_tokens for batch in batches)
    num_targets = sum(batch.num_targets for batch in batches)
    flops = sum(map(plan.flops_of, batches))
    return StepOutcome(loss, grad_norm, learning_rate, num_tokens, num_targets, flops, waiting)


def accumulate_gradients(state: TrainState, plan: Plan, batches: Sequence[Batch]) -> tuple[float, float]:
    """Leave the clipped gradient of the whole step in the parameters; return its loss and the norm before clipping."""
    state.model.train()
    state.optimizer.zero_grad(set_to_none=True)
    # A step without a target (a window of user turns, once a curriculum is over) has the loss 0 and no gradient.
    num_targets = max(1, sum(batch.num_targets for batch in batches))
    total = torch.zeros((), device=plan.device)
    for batch in batches:
        with plan.autocast():
            nll = plan.nll_sum(state.model, batch.to(plan.device))
        state.scaler.scale(nll / num_targets).backward()
        total += nll.detach()
    state.scaler.unscale_(state.optimizer)
    grad_norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), plan.max_grad_norm or math.inf)
    return float(total) / num_targets, float(grad_norm)


def take_scores(state: TrainState, result: EvaluationDone, plan: Plan) -> EvaluationDone:
    """Count an evaluation: the best scores so far, and the evaluations since the monitored one improved.

    Returns it with the scores by which these weights are the best so far. Without the monitored metric (there was too
    little memory for replies) it neither uses patience up nor restores it.
    """
    progress, rule = state.progress, plan.early_stopping
    loss, best_loss = result.loss, progress.best_loss
    metric, best_metric = result.metrics.get(plan.metric), progress.best_metrics.get(plan.metric)
    is_better: bool | None = None
    if not rule.monitors_metric:
        is_better = best_loss is None or loss < best_loss - rule.min_delta
    elif metric is not None:
        is_better = best_metric is None or metric > best_metric + rule.min_delta
    if is_better is not None:
        progress.evaluations_without_improvement = 0 if is_better else progress.evaluations_without_improvement + 1
    best = []
    if best_loss is None or loss < best_loss:
        best.append("loss")
        progress.best_loss = loss
    if metric is not None and (best_metric is None or metric > best_metric):
        best.append("metric")
    highest = {name: max(value, progress.best_metrics.get(name, value)) for name, value in result.metrics.items()}
    progress.best_metrics = {**progress.best_metrics, **highest}
    state.is_evaluated = True
    return replace(result, best=tuple(best))


def reason_it_is_over(state: TrainState, plan: Plan) -> str | None:
    """Why there is no step left to take, or None while there is."""
    progress = state.progress
    if is_out_of_patience(progress, plan.early_stopping.patience):
        monitored = plan.metric if plan.early_stopping.monitors_metric else "validation loss"
        return f"{monitored} did not improve in {plan.early_stopping.patience} evaluations"
    return f"all {plan.max_steps} steps done" if progress.step >= plan.max_steps else None


def is_out_of_patience(progress: Progress, patience: int | None) -> bool:
    """Whether early stopping ends the run here."""
    return patience is not None and progress.evaluations_without_improvement >= patience


def step_seed(seed: int, step: int) -> int:
    """Seed of a step's dropout, far from those of other seeds and steps."""
    return (seed * 1_000_003 + step) % 2**63
