"""Plan of a run: its sizes, steps, checkpoints and learning rate, before the first step."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from convo_cli.events import RunStarted
from convo_cli.model.tensor_files import tensor_files
from convo_cli.runs.directory import RunDirectory
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET
from convo_cli.training.job import is_evaluation_due
from convo_cli.training.optim import (
    has_user_targets,
    horizon_of,
    learning_rate_at,
    schedule_corners,
)
from convo_cli.training.planning.run_estimate import RunEstimate, estimate_run
from convo_cli.training.recorded import started
from convo_cli.training.run_parts import Parts
from convo_cli.training.saving import optimizer_file_bytes, trained_parameters
from convo_cli.training.state import TrainState

_NUM_RATES = 64


@dataclass(frozen=True)
class Plan:
    """Everything that is known about a run before its first step."""

    start: RunStarted
    """The event with which the run begins: device, model size, data and steps."""
    num_trained_parameters: int
    epochs: float
    num_tokens: int
    """Tokens of all steps; a token counts once for each epoch."""
    num_targets: int
    """Targets of all steps."""
    num_evaluations: int
    num_checkpoints: int
    """Checkpoints written during the run, including the one before step 1."""
    may_stop_early: bool
    """True if early stopping may end the run before its last step."""
    checkpoint_bytes: int
    """Size of a checkpoint from step 1 on."""
    max_checkpoints: int
    """Most checkpoints on the disk at once, including the one that is being written."""
    free_bytes: int
    """Free space where the run directory will be."""
    learning_rates: tuple[tuple[int, float], ...]
    """Steps, counted from 1, and their rates: the first, the peak, the last and some in between."""
    estimate: RunEstimate | None
    """Estimates of memory and time."""

    @property
    def peak_bytes(self) -> int:
        """Return the most that checkpoints use on the disk at once."""
        return self.max_checkpoints * self.checkpoint_bytes


def make_plan(
    run: RunDirectory, parts: Parts, state: TrainState, aside: RunDirectory, num_processes: int
) -> Plan:
    """Return the plan of a new run whose checkpoint 0 has been written ``aside``."""
    config, order, max_steps = parts.config, parts.order, parts.max_steps
    is_evaluated = is_evaluation_due(parts, max_steps)
    evaluations = [config.evaluation.every_steps] if is_evaluated else []
    num_evaluations = _num_due(parts, *evaluations) if is_evaluated else 0
    num_evaluations += is_evaluation_due(parts, 0)
    saves = config.checkpoints.every_steps or config.evaluation.every_steps
    num_checkpoints = 1 + _num_due(parts, saves, *evaluations)
    total, _, free = shutil.disk_usage(run.path.parent)
    return Plan(
        start=replace(started(run, parts, state, {}), num_processes=num_processes),
        num_trained_parameters=sum(
            parameter.numel() for parameter in trained_parameters(parts.model).values()
        ),
        epochs=order.epoch(max_steps),
        num_tokens=order.total(parts.data.train.lengths, max_steps),
        num_targets=_num_targets(parts),
        num_evaluations=num_evaluations,
        num_checkpoints=num_checkpoints,
        may_stop_early=is_evaluated and config.evaluation.early_stopping.patience is not None,
        checkpoint_bytes=_checkpoint_bytes(aside.checkpoint(0), parts),
        max_checkpoints=_max_checkpoints(parts, num_checkpoints, num_evaluations),
        free_bytes=free if total else 0,
        learning_rates=_learning_rates(parts),
        estimate=estimate_run(parts, num_processes),
    )


def _num_due(parts: Parts, *intervals: int | None) -> int:
    """Return at how many steps, with the last, one of the intervals ends: steps, or None for an
    epoch.

    Counts without a list of the steps, because a run may have a billion of them.
    """
    order, last = parts.order, parts.max_steps
    numbers = {every for every in intervals if every is not None}
    num_due = sum(last // every for every in numbers)
    if len(numbers) == 2:
        num_due -= last // math.lcm(*numbers)
    if None in intervals:
        epochs = range(1, int(order.epoch(last)) + 1)
        ends = (step for step, _ in groupby(map(order.num_steps, epochs)))
        num_due += sum(all(step % every for every in numbers) for step in ends)
    is_last_due = any(last % every == 0 for every in numbers) or (
        None in intervals and order.ends_epoch(last)
    )
    return num_due if is_last_due else num_due + 1


def _max_checkpoints(parts: Parts, num_checkpoints: int, num_evaluations: int) -> int:
    """Return how many may exist at once: the newest, the best, and the one being written."""
    config = parts.config
    has_scores = {"loss": num_evaluations > 0, "metric": bool(parts.reply_dialogues)}
    num_best = sum(
        config.checkpoints.keep_best if name == config.evaluation.early_stopping.monitor else 1
        for name, has_score in has_scores.items()
        if has_score
    )
    return min(num_checkpoints, config.checkpoints.keep + min(num_best, num_evaluations) + 1)


def _checkpoint_bytes(first: Path, parts: Parts) -> int:
    """Return the size of a later checkpoint: the first one, with the moments of the optimizer."""
    files = set(first.iterdir()) - set(tensor_files(first, "optimizer"))
    return sum(file.stat().st_size for file in files) + optimizer_file_bytes(parts.model)


def _num_targets(parts: Parts) -> int:
    dialogue, order, max_steps = parts.config.dialogue, parts.order, parts.max_steps
    store = parts.data.train
    num_targets = order.total(store.targets_per_example(ASSISTANT_TARGET), max_steps)
    horizon = horizon_of(parts.config.training, max_steps)
    until = dialogue.user_turns_until
    if dialogue.train_on == "all" or has_user_targets(max_steps - 1, until, horizon):
        last = max_steps
    else:
        last = math.ceil(until * horizon)
    return num_targets + order.total(store.targets_per_example(USER_TARGET), last)


def _learning_rates(parts: Parts) -> tuple[tuple[int, float], ...]:
    training, max_steps = parts.config.training, parts.max_steps
    spread = (k * (max_steps - 1) // (_NUM_RATES - 1) for k in range(_NUM_RATES))
    corners = schedule_corners(training, max_steps)
    steps = sorted({*spread, *(step for step in corners if 0 <= step < max_steps)})
    return tuple((step + 1, learning_rate_at(step, training, max_steps)) for step in steps)
