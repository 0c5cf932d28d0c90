"""A state and a plan small enough to take real steps in milliseconds."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from convo_cli.config.schema import ScratchConfig, TrainingConfig
from convo_cli.model.build import build_scratch_model
from convo_cli.model.loss import nll_sum, pad
from convo_cli.tokens.store import ASSISTANT_TARGET
from convo_cli.training.loop import EarlyStopping, Plan
from convo_cli.training.optim import make_optimizer
from convo_cli.training.state import TrainState

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def encoder(make_encoder):
    return make_encoder(max_length=64)


@pytest.fixture
def make_state(encoder):
    """A maker of fresh states; every one has the same weights."""

    def make(*, is_scaled=False, **training):
        size = ScratchConfig(layers=1, width=16, heads=2, context=64, dropout=0.1)
        model = build_scratch_model(size, encoder, seed=0)
        optimizer = make_optimizer(model, TrainingConfig(**{"max_steps": 10, "learning_rate": 1e-2, **training}))
        return TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=is_scaled, growth_interval=3))

    return make


@pytest.fixture
def make_plan(encoder, sample_dialogues):
    """A maker of plans that neither evaluate nor save unless they are told to."""
    examples = [window for windows in encoder.encode(sample_dialogues[:4]) for window in windows]

    def make(**changes):
        values = {
            "max_steps": 3, "seed": 0, "device": CPU, "max_grad_norm": 1.0, "metric": "bleu-4",
            "early_stopping": EarlyStopping(None, False, 0.0), "learning_rate": lambda step: 1e-2,
            "autocast": nullcontext, "is_evaluation_due": lambda step: False, "is_save_due": lambda step: False,
            "micro_batches": lambda step: [pad(examples, {ASSISTANT_TARGET}, encoder.pad_id)], "nll_sum": nll_sum,
            "epoch": lambda step: step / 2, "flops_of": lambda batch: 0.0, "peak_memory": lambda: 0,
            "evaluate": lambda state: None, "save": lambda state: None, "is_stop_requested": lambda: False,
        }  # fmt: skip
        return Plan(**{**values, **changes})

    return make
