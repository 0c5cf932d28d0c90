"""Reference losses of five steps: a change to numerics shows here and must be explained."""

from __future__ import annotations

import math

import pytest

from convo_cli.events import StepDone
from convo_cli.training.run import start_run

# `pytest tests/laws/test_reference_losses.py` prints the new losses if they differ.
REFERENCE = {
    "off": [6.456133, 6.414939, 6.321566, 6.322111, 6.300727],
    # Dropout acts on other tokens in packed batches.
    "on": [6.448233, 6.419538, 6.320972, 6.317869, 6.302104],
}


def losses_of(config):
    losses = []
    start_run(
        config, lambda event: losses.append(event.loss) if isinstance(event, StepDone) else None
    )
    return losses


@pytest.mark.parametrize("packing", REFERENCE)
def test_the_first_five_losses_are_the_reference_losses(tiny_config, packing):
    training = {"max_steps": 5, "warmup_steps": 0, "learning_rate": 3e-3, "packing": packing}
    losses = losses_of(tiny_config(training=training))
    known = REFERENCE[packing]
    assert all(
        math.isclose(loss, then, abs_tol=2e-4) for loss, then in zip(losses, known, strict=True)
    ), losses


def test_without_dropout_packing_does_not_show_in_the_losses(tiny_config):
    size = {"layers": 2, "width": 32, "heads": 2, "context": 128, "dropout": 0.0}
    runs = [
        losses_of(
            tiny_config(
                name=packing,
                model={"scratch": size},
                training={
                    "max_steps": 5,
                    "warmup_steps": 0,
                    "learning_rate": 3e-3,
                    "packing": packing,
                },
            )
        )
        for packing in ("on", "off")
    ]
    assert all(math.isclose(one, other, abs_tol=1e-4) for one, other in zip(*runs, strict=True)), (
        runs
    )


def test_a_new_model_starts_at_the_loss_of_guessing(tiny_config):
    """ln(vocabulary size) is what a model that knows nothing scores."""
    seen = []
    start_run(tiny_config(training={"max_steps": 1, "warmup_steps": 0}), seen.append)
    first = next(event for event in seen if isinstance(event, StepDone))
    assert abs(first.loss - math.log(704)) < 0.3
