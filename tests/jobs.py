"""A job that only takes steps, for tests."""

from __future__ import annotations

from convo_cli.model.batches.loss import nll_sum
from convo_cli.training.loop import Job, StepPlan


class StepsJob(Job):
    """Trains on the same micro-batches at every step; ``changes`` replace its attributes."""

    max_steps, seed, max_grad_norm = 3, 0, 1.0

    def __init__(self, *batches, **changes):
        self.events, self._batches = [], batches
        vars(self).update(changes)

    def batches(self, step):
        return self._batches

    def plan(self, step):
        return StepPlan.of(self.batches(step))

    def nll_sum(self, model, batch):
        return nll_sum(model, batch)

    def learning_rate(self, step):
        return 1e-2

    def emit(self, event):
        self.events.append(event)
