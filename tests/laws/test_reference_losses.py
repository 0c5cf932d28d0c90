"""The losses of five steps, written down: a change to numerics shows itself here and has to be explained."""

from __future__ import annotations

import math

from convo_cli.events import StepDone
from convo_cli.training.run import start_run

# `pytest tests/laws/test_reference_losses.py` prints the new ones where they differ.
REFERENCE = [6.456133, 6.420905, 6.323064, 6.321148, 6.302779]


def test_the_first_five_losses_are_the_reference_losses(tiny_config):
    losses = []
    config = tiny_config(training={"max_steps": 5, "warmup_steps": 0, "learning_rate": 3e-3})
    start_run(config, lambda event: losses.append(event.loss) if isinstance(event, StepDone) else None)
    assert all(math.isclose(loss, known, abs_tol=2e-4) for loss, known in zip(losses, REFERENCE, strict=True)), losses


def test_a_new_model_starts_at_the_loss_of_guessing(tiny_config):
    """ln(vocabulary size) is what a model that knows nothing scores."""
    seen = []
    start_run(tiny_config(training={"max_steps": 1, "warmup_steps": 0}), seen.append)
    first = next(event for event in seen if isinstance(event, StepDone))
    assert abs(first.loss - math.log(704)) < 0.3
