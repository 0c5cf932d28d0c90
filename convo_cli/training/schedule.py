"""The learning rate as a pure function of the step, and the horizon that it falls over."""

from __future__ import annotations

import math

from convo_cli.config.schema import TrainingConfig


def horizon_of(training: TrainingConfig, max_steps: int) -> int:
    """Steps of the schedule in a run of ``max_steps``: the fraction of a run counts in them too."""
    return training.schedule_steps or max_steps


def learning_rate_at(step: int, training: TrainingConfig, max_steps: int) -> float:
    """Learning rate of the update that follows ``step`` finished ones (0 for the first), in a run of ``max_steps``.

    It climbs linearly over the warm-up, which ends with the horizon at the latest, and reaches the peak with its last
    step. Then it falls to its floor with the last step of the horizon, and stays there.
    """
    horizon = horizon_of(training, max_steps)
    warmup_steps = min(training.warmup_steps, horizon)
    if step < warmup_steps:
        return training.learning_rate * (step + 1) / warmup_steps
    if training.schedule == "constant":
        return training.learning_rate
    remaining = horizon - 1 - warmup_steps
    progress = min(1.0, (step - warmup_steps) / remaining) if remaining > 0 else 1.0
    fall = 0.5 * (1.0 + math.cos(math.pi * progress)) if training.schedule == "cosine" else 1.0 - progress
    return training.learning_rate * (training.min_lr_ratio + (1.0 - training.min_lr_ratio) * fall)


def has_user_targets(step: int, user_turns_until: float, horizon: int) -> bool:
    """Whether the curriculum makes targets of user turns in the update that follows ``step`` finished ones."""
    return user_turns_until >= 1.0 or step < user_turns_until * horizon
