"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from convo_cli.config.schema import Schedule


def learning_rate_at(
    step: int, *, schedule: Schedule, peak: float, max_steps: int, warmup_steps: int, min_lr_ratio: float
) -> float:
    """Learning rate of the update that follows ``step`` finished ones (0 for the first).

    It climbs linearly over the warm-up, reaching the peak with its last step, then falls to ``peak * min_lr_ratio``
    with the last step of the run, and stays there should the run be extended.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "constant":
        return peak
    remaining = max_steps - 1 - warmup_steps
    progress = min(1.0, (step - warmup_steps) / remaining) if remaining > 0 else 1.0
    fall = 0.5 * (1.0 + math.cos(math.pi * progress)) if schedule == "cosine" else 1.0 - progress
    return peak * (min_lr_ratio + (1.0 - min_lr_ratio) * fall)
