"""A loss or gradient that is not finite stops the run before any weight changes."""

from __future__ import annotations

import math
import re

import pytest
import torch

from convo_cli.config.schema import ScratchConfig
from convo_cli.errors import DivergedError
from convo_cli.model.batches.batching import Batching
from convo_cli.model.batches.loss import nll_sum, pack
from convo_cli.model.create import build_scratch_model
from convo_cli.runs.directory import RunDirectory
from convo_cli.storage.sealed import file_sha256
from convo_cli.tokens.store import ASSISTANT_TARGET
from convo_cli.training.loop import train_step
from convo_cli.training.run import resume_run, start_run
from convo_cli.training.state import TrainState
from tests.jobs import StepsJob


@pytest.fixture
def state(make_encoder):
    size = ScratchConfig(layers=1, width=16, heads=2, context=128)
    model = build_scratch_model(size, make_encoder(), seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))


@pytest.fixture
def batch(make_encoder, sample_dialogues):
    examples = [
        window for windows in make_encoder().encode(sample_dialogues[:4]) for window in windows
    ]
    return pack(examples, {ASSISTANT_TARGET})


@pytest.fixture
def job(batch):
    return StepsJob(batch, learning_rate=lambda step: 1e-3)


def _copy(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _same(before, model):
    return all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_finite_step_does_change_the_weights(state, job):
    before = _copy(state.model)
    train_step(state, job)
    assert not _same(before, state.model)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused_before_the_update(state, job, bad):
    job.nll_sum = lambda model, batch: nll_sum(model, batch) * bad
    before = _copy(state.model)
    with pytest.raises(DivergedError, match=f"step 1: the loss is {bad}"):
        train_step(state, job)
    assert _same(before, state.model)


def test_a_gradient_that_is_not_finite_is_refused_before_the_update(state, job):
    weight = next(state.model.parameters())
    weight.register_hook(lambda gradient: gradient * math.nan)
    before = _copy(state.model)
    with pytest.raises(DivergedError, match="step 1: the gradient is nan"):
        train_step(state, job)
    assert _same(before, state.model)


def test_an_fp16_overflow_halves_the_scale_and_repeats_the_step(state, job):
    state.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=2.0**10)
    weight = next(state.model.parameters())
    # Overflows as fp16 would above a scale of 256: the gradient arrives multiplied by the scale.
    weight.register_hook(
        lambda gradient: gradient * (math.inf if state.scaler.get_scale() > 256 else 1.0)
    )
    before = _copy(state.model)
    outcome = train_step(state, job)
    assert state.scaler.get_scale() == 256.0
    assert math.isfinite(outcome.grad_norm)
    assert not _same(before, state.model)


def test_a_scaled_step_is_the_step_without_a_scaler(make_encoder, state, job):
    outcome = train_step(state, job)
    twin = TrainState(
        build_scratch_model(
            ScratchConfig(layers=1, width=16, heads=2, context=128), make_encoder(), seed=0
        ),
        torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]),
        torch.amp.GradScaler("cpu", enabled=True, init_scale=1024.0),
    )
    twin.optimizer = torch.optim.AdamW(twin.model.parameters(), lr=1e-3)
    scaled = train_step(twin, job)
    assert math.isclose(scaled.grad_norm, outcome.grad_norm, rel_tol=1e-4)
    for one, other in zip(state.model.parameters(), twin.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_a_run_that_diverges_names_step_and_dialogues_and_saves_what_came_before(
    tiny_config, tmp_path, ignore, monkeypatch
):
    """Step 5 meets a NaN that is gone at the resume, which then ends like an undisturbed run."""
    config = tiny_config(
        data={"validation": []}, training={"batch_size": 8}, checkpoints={"every_steps": 9}
    )
    start_run(config.model_copy(update={"name": "straight"}), ignore)
    genuine, calls = Batching.nll, []

    def poisoned(self, model, batch):
        calls.append(batch)
        total, each = genuine(self, model, batch)
        return total * (math.nan if len(calls) == 5 else 1.0), each

    monkeypatch.setattr(Batching, "nll", poisoned)
    with pytest.raises(DivergedError) as caught:
        start_run(config, ignore)
    message = caught.value.message
    assert message.startswith(
        "step 5: the loss is nan; the weights are those of step 4, saved as step-00000004; "
    )
    named = re.findall(r"^  (.+):(\d+)$", message, re.MULTILINE)
    assert {path for path, _ in named} == set(config.data.train)
    assert len({line for _, line in named}) == 5
    assert message.endswith("\n  and 3 more")
    run, straight = (RunDirectory(tmp_path / "runs" / name) for name in ("tiny", "straight"))
    assert run.checkpoint_steps() == [0, 4]
    assert resume_run(run.path, "last", config, ignore).step == 6
    weights = [file_sha256(one.checkpoint(6) / "model.safetensors") for one in (run, straight)]
    assert weights[0] == weights[1]
