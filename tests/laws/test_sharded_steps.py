"""A step of a sharded model is that of one process, but for rounding, also after a resume."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from convo_cli.config.schema import ScratchConfig, TrainingConfig
from convo_cli.model.batches.loss import nll_sum, pad
from convo_cli.model.create import build_scratch_model
from convo_cli.runs.directory import RunDirectory
from convo_cli.storage.sealed import verify_directory
from convo_cli.tokens.store import ASSISTANT_TARGET
from convo_cli.training.loop import StepPlan, train_step
from convo_cli.training.optim import make_optimizer
from convo_cli.training.saving import load_checkpoint_model, restore_state, save_checkpoint
from convo_cli.training.sharding.fsdp import (
    reduce_gradients,
    run_inside,
    shard_model,
    whole_model,
)
from convo_cli.training.state import TrainState
from convo_cli.world import World
from tests.jobs import StepsJob
from tests.ranks import run_ranks

SIZE = ScratchConfig(layers=2, width=16, heads=2, context=64, dropout=0.0)


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder(max_length=64)


class Steps(StepsJob):
    """Steps over all batches of an encoder's examples, of which each rank computes some."""

    def __init__(self, encoder, dialogues, world):
        self.world, self.events = world, []
        examples = [one for windows in encoder.encode(dialogues) for one in windows]
        kinds = {ASSISTANT_TARGET}
        whole = [pad(examples[n : n + 2], kinds, encoder.pad_id) for n in range(0, 6, 2)]
        own = whole[world.rank :: world.size]
        while len(own) < -(-len(whole) // world.size):
            own.append(pad(examples[:1], set(), encoder.pad_id))  # a pass that adds nothing
        total = StepPlan.of(whole)
        self._plan = StepPlan(own, total.num_tokens, total.num_targets)

    def plan(self, step):
        return self._plan

    def nll_sum(self, model, batch):
        reduce_gradients(model, is_due=batch is self._plan.batches[-1])
        return run_inside(model, lambda: nll_sum(model, batch))


def new_state(model, world):
    if world.size > 1:
        shard_model(model, world)
    config = TrainingConfig(max_steps=10, learning_rate=1e-2, epsilon=1e-4)
    return TrainState(model, make_optimizer(model, config), torch.amp.GradScaler(enabled=False))


def resumed(run, step, world):
    path = run.checkpoint(step)
    verify_directory(path)
    state = new_state(load_checkpoint_model(path), world)
    restore_state(path, state)
    return state


def advance(state, job, number):
    done = [train_step(state, job) for _ in range(number)]
    return [(one.loss, one.grad_norm) for one in done]


def weights(folder) -> dict[str, Any]:
    return load_checkpoint_model(folder).state_dict()


def test_two_processes_take_the_steps_of_one_and_resume_as_one_and_as_two(
    encoder, sample_dialogues, ignore, tmp_path
):
    def save(run, state, world):
        save_checkpoint(run, state, encoder, spiece=None, emit=ignore, world=world)

    def directory(name):
        run = RunDirectory(tmp_path / name)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        return run

    def start(run, world):
        job = Steps(encoder, sample_dialogues[:6], world)
        state = new_state(build_scratch_model(SIZE, encoder, seed=0), world)
        save(run, state, world)
        results = advance(state, job, 4)
        save(run, state, world)
        return results

    def go_on(run, begin, number, world):
        job = Steps(encoder, sample_dialogues[:6], world)
        state = resumed(run, begin, world)
        results = advance(state, job, number)
        save(run, state, world)
        return results

    one, two = directory("one"), directory("two")
    expected = [*start(one, World()), *go_on(one, 4, 4, World())]

    results = run_ranks(2, tmp_path, lambda world: start(two, world))
    assert results[0] == results[1]
    steps = [*results[0], *go_on(two, 4, 2, World())]
    assert (two.checkpoint(4) / "model-00002-of-00002.safetensors").exists()
    assert (two.checkpoint(6) / "model.safetensors").exists()
    steps += run_ranks(2, tmp_path, lambda world: go_on(two, 6, 2, world))[0]

    assert (two.checkpoint(8) / "model-00002-of-00002.safetensors").exists()
    for own, other in zip(steps, expected, strict=True):
        assert own == pytest.approx(other, rel=1e-5)
    ones, others = weights(one.checkpoint(8)), weights(two.checkpoint(8))
    assert ones.keys() == others.keys()
    for name, tensor in ones.items():
        assert (others[name] - tensor).norm() <= 1e-4 * tensor.norm()


def test_a_resume_of_a_sharded_run_in_as_many_processes_has_the_same_bits(
    encoder, sample_dialogues, ignore, tmp_path
):
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()

    def straight_and_resumed(world):
        job = Steps(encoder, sample_dialogues[:6], world)
        state = new_state(build_scratch_model(SIZE, encoder, seed=0), world)
        advance(state, job, 2)
        save_checkpoint(run, state, encoder, spiece=None, emit=ignore, world=world)
        straight, again = advance(state, job, 2), resumed(run, 2, world)
        assert advance(again, job, 2) == straight
        for tensor, other in zip(state.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(tensor.to_local(), other.to_local())

    run_ranks(2, tmp_path, straight_and_resumed)


def test_inside_whole_model_each_process_may_take_its_own_passes_and_training_goes_on(
    encoder, sample_dialogues, tmp_path
):
    def evaluated(world):
        job = Steps(encoder, sample_dialogues[:6], world)
        plain = build_scratch_model(SIZE, encoder, seed=0).eval()
        state = new_state(build_scratch_model(SIZE, encoder, seed=0), world)
        with torch.no_grad(), whole_model(state.model.eval()) as whole:
            for batch in job.plan(0).batches * world.rank:
                assert torch.equal(nll_sum(whole.eval(), batch), nll_sum(plain, batch))
        assert all(parameter.is_meta for parameter in whole.parameters())
        first = advance(state, job, 2)
        with torch.no_grad(), whole_model(state.model) as whole:
            values = [float(nll_sum(whole, batch)) for batch in job.plan(0).batches * world.rank]
        return first, values and sum(values), advance(state, job, 1)

    one, two = run_ranks(2, tmp_path, evaluated)
    assert (one[0], one[2]) == (two[0], two[2])
    assert one[2][0][0] < one[0][1][0]
