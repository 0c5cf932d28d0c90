"""A maker of checkpoints as training writes them."""

from __future__ import annotations

import pytest
import torch

from convo_cli.config.schema import GenerationSettings, ScratchConfig, TrainingConfig
from convo_cli.model.create import build_scratch_model
from convo_cli.model.decoding.sampling_defaults import set_generation_defaults
from convo_cli.runs.directory import RunDirectory
from convo_cli.text.spiece.piece_model import SpieceFile
from convo_cli.training.optim import make_optimizer
from convo_cli.training.saving import save_checkpoint
from convo_cli.training.state import TrainState


@pytest.fixture(scope="session")
def make_checkpoint(make_encoder, spiece):
    def make(folder, *, max_length=128, template="turns", **generation):
        encoder = make_encoder(template, max_length)
        model = build_scratch_model(
            ScratchConfig(layers=1, width=16, heads=2, context=128), encoder, seed=0
        )
        set_generation_defaults(model, encoder, GenerationSettings(**generation))
        run = RunDirectory(folder)
        run.checkpoints.mkdir(parents=True)
        run.config.write_text("{}")
        optimizer = make_optimizer(model, TrainingConfig(max_steps=1))
        state = TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))
        save_checkpoint(
            run, state, encoder, spiece=SpieceFile("spiece.model", spiece), emit=lambda event: None
        )
        return run.checkpoint(0)

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint, tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("run"))
