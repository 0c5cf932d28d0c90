"""A state and a job small enough to take real steps in milliseconds."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from convo_cli.config.schema import ScratchConfig, TrainingConfig
from convo_cli.model.batches.loss import pad
from convo_cli.model.create import build_scratch_model
from convo_cli.tokens.store import ASSISTANT_TARGET
from convo_cli.training.optim import make_optimizer
from convo_cli.training.state import TrainState
from tests.jobs import StepsJob


@pytest.fixture(scope="session")
def encoder(make_encoder):
    return make_encoder(max_length=64)


@pytest.fixture
def make_state(encoder):
    """A maker of fresh states; every one has the same weights."""

    def make(*, is_scaled=False, **training):
        size = ScratchConfig(layers=1, width=16, heads=2, context=64, dropout=0.1)
        model = build_scratch_model(size, encoder, seed=0)
        optimizer = make_optimizer(
            model, TrainingConfig(**{"max_steps": 10, "learning_rate": 1e-2, **training})
        )
        return TrainState(
            model, optimizer, torch.amp.GradScaler("cpu", enabled=is_scaled, growth_interval=3)
        )

    return make


@pytest.fixture
def make_job(encoder, sample_dialogues):
    """A maker of jobs that take three steps on one batch; by default they only train."""
    examples = [window for windows in encoder.encode(sample_dialogues[:4]) for window in windows]
    return partial(StepsJob, pad(examples, {ASSISTANT_TARGET}, encoder.pad_id))
