"""Length and schedule horizon of a resumed run: another length never raises the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from convo_cli.config.schema import Steps, TrainingConfig
from convo_cli.events import Notice
from convo_cli.runs.checkpoints import Progress
from convo_cli.runs.provenance.run_info import RunInfo
from convo_cli.training.optim import horizon_of, learning_rate_at
from convo_cli.training.run_parts import Parts
from convo_cli.training.state import is_out_of_patience
from convo_cli.wording import counted

HORIZON = "training.schedule_steps"


def settle_horizon(
    before: TrainingConfig, old_steps: int, now: TrainingConfig, max_steps: int, *, is_set: bool
) -> int:
    """Return the horizon of a run of ``old_steps`` that is resumed as one of ``max_steps``.

    ``is_set``: the user sets `training.schedule_steps` in this resume; None then means the new
    length. Otherwise an extended run keeps its horizon. A run that becomes shorter than its horizon
    gets the new length as its horizon, or the warm-up if that is longer, so that the warm-up does
    not become steeper.
    """
    if is_set or now.schedule_steps is not None:
        return horizon_of(now, max_steps)
    old = horizon_of(before, old_steps)
    return old if max_steps >= old else max(max_steps, min(before.warmup_steps, old))


def resume_schedule(
    info: RunInfo, parts: Parts, step: int, *, is_set: bool
) -> tuple[Parts, tuple[Notice, ...]]:
    """Return the parts with the horizon of the resumed run in their config, and the notices.

    ``info`` describes the last start or resume of the run, ``step`` is the number of finished
    steps. ``is_set``: the user sets `training.schedule_steps` in this resume.
    """
    before, now, length = info.config.training, parts.config.training, parts.max_steps
    is_set = is_set or now.schedule_steps != before.schedule_steps
    horizon = settle_horizon(before, info.max_steps, now, length, is_set=is_set)
    if horizon != length or length != info.max_steps:
        now = now.model_copy(update={"schedule_steps": horizon})
        parts = replace(parts, config=parts.config.model_copy(update={"training": now}))
    notices = [
        *_of_length(info, parts, step),
        *_of_next_step(before, info.max_steps, now, length, step),
    ]
    return parts, tuple(map(Notice, notices))


def warm_up_notices(parts: Parts, step: int) -> tuple[Notice, ...]:
    """Return the notices about a warm-up that is longer than the run or its schedule."""
    training, length = parts.config.training, parts.max_steps
    warmup_steps, horizon = training.warmup_steps, horizon_of(training, length)
    if step >= horizon or warmup_steps <= min(horizon, length):
        return ()
    steps = "1 step" if length == 1 else f"{length} steps"
    have = f"training.warmup_steps is {warmup_steps}, but the run has {steps}"
    if horizon == length:
        return (Notice(f"{have}: the warm-up ends with the run"),)
    if warmup_steps <= horizon:
        rate = learning_rate_at(length - 1, training, length)
        return (Notice(f"{have}: it ends during the warm-up, at a learning rate of {rate:.2g}"),)
    return (
        Notice(
            f"training.warmup_steps is {warmup_steps}, but {HORIZON} is {horizon}: the warm-up "
            "ends with the schedule"
        ),
    )


def _of_length(info: RunInfo, parts: Parts, step: int) -> Iterator[str]:
    config, training, length = parts.config, parts.config.training, parts.max_steps
    if length == info.max_steps:
        return
    horizon, first = horizon_of(training, length), max(step, horizon_of(training, length))
    message = (
        f"the run is {'extended' if length > info.max_steps else 'shortened'} from "
        f"{info.max_steps:,} to {counted(length, 'step')}"
    )
    stretched = training.model_copy(update={"schedule_steps": length})
    kept, other = (learning_rate_at(first, each, length) for each in (training, stretched))
    if first < length and kept != other:
        message += (
            f"; from step {first + 1} on the learning rate is {_text(kept, other)} "
            f"({HORIZON} is {horizon}). --set {HORIZON}={length} stretches the schedule: "
            f"step {first + 1} then has {_text(other, kept)}"
        )
    elif horizon != length and training.schedule != "constant":
        message += f"; its learning-rate schedule has {counted(horizon, 'step')} ({HORIZON})"
    if 0 < config.dialogue.user_turns_until < 1 and config.dialogue.train_on != "all":
        last = math.ceil(config.dialogue.user_turns_until * horizon)
        message += f"; user turns are targets up to step {last}"
    yield message


def _of_next_step(
    before: TrainingConfig, old_steps: int, now: TrainingConfig, max_steps: int, step: int
) -> Iterator[str]:
    old, new = learning_rate_at(step, before, old_steps), learning_rate_at(step, now, max_steps)
    if old != new:
        rates = f"from {_text(old, new)} to {_text(new, old)}"
        yield f"the learning rate of step {step + 1} changes {rates}"


def _text(rate: float, other: float) -> str:
    """Format the rate with enough digits to tell it from the other one."""
    return next(
        (
            text
            for digits in range(2, 17)
            if (text := f"{rate:.{digits}g}") != f"{other:.{digits}g}"
        ),
        repr(rate),
    )


def settings_to_continue(parts: Parts, progress: Progress) -> tuple[str, ...]:
    """Return the settings for `convo resume --set` that give a finished run more steps."""
    settings, training, step = [], parts.config.training, progress.step
    if is_out_of_patience(progress, parts.config.evaluation.early_stopping.patience):
        settings.append("evaluation.early_stopping.patience=null")
    if step >= parts.max_steps:
        if isinstance(training.length, Steps):
            settings.append(f"training.max_steps={2 * step}")
        else:
            done, doubled = parts.order.epoch(step), 2 * training.length.number
            settings.append(
                f"training.epochs={doubled if doubled > done else math.floor(done) + 1:.12g}"
            )
    return tuple(settings)
