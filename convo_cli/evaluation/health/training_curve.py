"""The steps of a run so far: their recent losses, and how far they could move the weights."""

from __future__ import annotations

from collections import deque

SMOOTHED_STEPS = 100
"""Steps over which the training loss is averaged, because single steps are noisy."""


class TrainingCurve:
    """Losses and learning rates of the steps of a run."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=SMOOTHED_STEPS)
        self.sum_of_rates = 0.0
        """Sum of all learning rates: AdamW moves a weight by about that much at most."""

    def add(self, loss: float, learning_rate: float, num_targets: int) -> None:
        """Add a step; the loss of one without targets is 0 and does not count."""
        self.sum_of_rates += learning_rate
        if num_targets:
            self._losses.append(loss)

    @property
    def loss(self) -> float | None:
        """Return the mean training loss of the last 100 steps; None before the first."""
        return sum(self._losses) / len(self._losses) if self._losses else None
