"""The training loop: everything that `convo train` does to the weights. Read this file first.

A step is one optimizer update over a fixed number of examples, in as many micro-batches as memory
requires:

    loss of a step = summed nll of all its target tokens / their number

Both are taken over the whole step, so the way it is cut into micro-batches, and the number of
processes that share them, change nothing but rounding. The learning rate, the examples and the
dropout of a step are functions of its number alone, so a resumed run repeats them exactly.

`train` runs all steps, `train_step` makes one update, `accumulate_gradients` its forward and
backward passes. A `Job` supplies data and schedule, evaluates and saves; nothing here prints, opens
a file or reads a config.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from convo_cli.errors import DivergedError
from convo_cli.events import EvaluationDone, Event, StepDone
from convo_cli.model.batches.loss import Batch
from convo_cli.training.sharding.whole_tensors import as_number
from convo_cli.training.state import EarlyStopping, TrainState, reason_it_is_over, take_scores
from convo_cli.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STOPPED = "stopped on request"


class StepDivergedError(DivergedError):
    """A loss or gradient is not finite; weights and progress are those of the step before."""


@dataclass(frozen=True)
class StepPlan:
    """The micro-batches of a step that this process computes, and the sizes of the whole step."""

    batches: Sequence[Batch]
    num_tokens: int
    num_targets: int

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> StepPlan:
        """Return the plan of a step whose micro-batches are all computed here."""
        return cls(
            batches,
            sum(batch.num_tokens for batch in batches),
            sum(batch.num_targets for batch in batches),
        )


class Job(Protocol):
    """The interface between the loop and the run around it.

    ``step`` counts finished steps: 0 before the first. `training/job.py` implements it for a run
    directory. With the defaults the loop only takes steps, as in benchmarks.
    """

    max_steps: int
    seed: int
    max_grad_norm: float | None
    early_stopping: EarlyStopping = EarlyStopping()
    world: World = World()

    def plan(self, step: int) -> StepPlan:
        """Return the micro-batches of a step: what the model reads, and which of it are targets."""

    def nll_sum(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Run the forward pass and return the summed nll of the targets in nats.

        The result is an fp32 scalar on the model's device.
        """

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step."""

    def is_due(self, what: Literal["evaluation", "checkpoint"], step: int) -> bool:
        """Return whether the weights after ``step`` steps must be evaluated, or saved."""
        return False

    def evaluate(self, state: TrainState) -> EvaluationDone | None:
        """Score the weights; None if a stop was requested before the evaluation was complete."""
        return None

    def save(self, state: TrainState) -> None:
        """Publish a checkpoint of the step unless it exists; record the best checkpoints."""
        return

    def is_stopped(self) -> bool:
        """Return whether a stop was requested."""
        return False

    def emit(self, event: Event) -> None:
        """Hand an event to the progress display and the logs."""
        return


def train(state: TrainState, job: Job) -> str:
    """Advance the state until the run ends, and return the reason.

    Raises StepDivergedError with the weights of the last good step in place.
    """
    progress = state.progress
    while True:
        has_new_scores = False
        if not state.is_evaluated and job.is_due("evaluation", progress.step):
            job.save(state)  # first: an evaluation that fails or is killed loses no step
            result = None if job.is_stopped() else job.evaluate(state)
            if result is None:
                return STOPPED  # at once; the resumed run begins with this evaluation
            job.emit(take_scores(state, result, job.early_stopping))
            has_new_scores = True
        reason = reason_it_is_over(progress, job.early_stopping, job.max_steps)
        if reason is None and job.is_stopped():
            reason = STOPPED
        # New scores may make this checkpoint the best one, and the best is kept when older ones are
        # deleted.
        if reason or has_new_scores or job.is_due("checkpoint", progress.step):
            job.save(state)
        if reason:
            return reason
        job.emit(train_step(state, job))


def train_step(state: TrainState, job: Job) -> StepDone:
    """Take one step and count it.

    A loss or gradient that is not finite raises before any weight is touched.
    """
    started = time.perf_counter()
    progress, step = state.progress, state.progress.step
    # The rate of every step is computed, never updated, so there is no scheduler whose state a
    # resume could lose.
    learning_rate = job.learning_rate(step)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    plan = job.plan(step)
    while True:
        # Seeds dropout, the only randomness of a step.
        torch.manual_seed(step_seed(job.seed, step, job.world.rank))
        loss, grad_norm = accumulate_gradients(state, job, plan)
        if not math.isfinite(loss):
            raise StepDivergedError(
                f"step {step + 1}: the loss is {loss}; the weights are those of step {step}",
                hint="lower training.learning_rate, add training.warmup_steps, or check the data",
            )
        if math.isfinite(grad_norm):
            break
        # Without a scaler, or at a scale of 1, no smaller scale can help: the gradient itself is
        # too large.
        if not state.scaler.is_enabled() or state.scaler.get_scale() <= 1.0:
            raise StepDivergedError(
                f"step {step + 1}: the gradient is {grad_norm} (loss {loss:.4g}); the weights are "
                f"those of step {step}",
                hint="lower training.learning_rate, or set training.precision to bf16 or fp32",
            )
        # fp16 overflowed (its largest number is 65,504): `update` halves the scale, and the step is
        # repeated. Skipping it, as is usual with scalers, would leave a run of N steps with fewer
        # than N updates.
        state.scaler.update()
    state.scaler.step(state.optimizer)
    state.scaler.update()

    # On a GPU the update may still be running. Waiting for it here would only move its time out of
    # the next step.
    seconds = time.perf_counter() - started
    progress.step += 1
    progress.tokens_seen += plan.num_tokens
    progress.elapsed_seconds += seconds
    state.is_evaluated = False  # the last scores belong to the old weights
    return StepDone(
        step=progress.step,
        max_steps=job.max_steps,
        loss=loss,
        learning_rate=learning_rate,
        grad_norm=grad_norm,
        num_tokens=plan.num_tokens,
        num_targets=plan.num_targets,
        seconds=seconds,
        tokens_seen=progress.tokens_seen,
    )


def accumulate_gradients(state: TrainState, job: Job, plan: StepPlan) -> tuple[float, float]:
    """Leave the clipped gradient of the whole step in the parameters.

    Returns the loss of the step, and the norm before clipping.
    """
    state.model.train()
    # None, not zero: AdamW would still move a parameter with a zero gradient, by its old moments.
    state.optimizer.zero_grad(set_to_none=True)
    # Targets are counted over the whole step, in every process, before its first forward pass. The
    # mean of the micro-batch means would be a different gradient if micro-batches differ in
    # targets: 0.22 relative error in tests/laws/test_micro_batches.py. A step without targets (a
    # window of user turns, after the curriculum) has loss 0 and no gradient.
    num_targets = max(1, plan.num_targets)
    total = torch.zeros((), device=state.model.device)
    for batch in plan.batches:
        nll = job.nll_sum(state.model, batch)
        # Adds to the gradients; the scale is 1 except in fp16.
        state.scaler.scale(nll / num_targets).backward()
        # Stays on the device: reading it would wait for the GPU at each micro-batch.
        total += nll.detach()
    job.world.sum_gradients(state.model.parameters())  # once a step
    state.scaler.unscale_(state.optimizer)  # otherwise clipping would apply to the scaled gradient
    # An infinite limit clips nothing; the norm is measured all the same.
    grad_norm = torch.nn.utils.clip_grad_norm_(
        state.model.parameters(), job.max_grad_norm or math.inf
    )
    (whole,) = job.world.sum([float(total)])
    return whole / num_targets, as_number(grad_norm)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Return the seed of a step's dropout in one process of the world.

    Runs with seeds 0 and 1 first share one at step 1,000,003.
    """
    return (seed * 1_000_003 + step + (rank << 40)) % 2**63
