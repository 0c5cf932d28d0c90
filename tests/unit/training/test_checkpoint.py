"""What a checkpoint holds: everything the next step needs, nothing that is not finite, and nothing half written."""

from __future__ import annotations

import resource

import pytest
import torch
from safetensors.torch import load_file, save_file

from convo_cli.errors import CheckpointError, DiskError, DivergedError
from convo_cli.events import CheckpointSaved
from convo_cli.model.build import load_model
from convo_cli.runs.atomic import verify_directory
from convo_cli.runs.checkpoint import Scores
from convo_cli.runs.layout import RunDirectory
from convo_cli.training.checkpoint import OPTIMIZER_FILE, restore_state, save_checkpoint
from convo_cli.training.loop import train_step

FILES = {
    "MANIFEST.json", "chat_template.jinja", "config.json", "dialogue.json", "generation_config.json",
    "model.safetensors", "optimizer.safetensors", "spiece.model", "state.json", "tokenizer.json",
    "tokenizer_config.json",
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    return run


@pytest.fixture
def save(run, encoder, spiece, ignore):
    def save_state(state, *, keep=9, report=ignore):
        save_checkpoint(run, state, encoder, spiece=spiece, keep=keep, report=report)
        return run.checkpoint(state.progress.step)

    return save_state


def steps(state, plan, number):
    """Losses of some steps."""
    losses = []
    for _ in range(number):
        losses.append(train_step(state, plan).loss)
        state.progress.step += 1
    return losses


def loaded(path, make_state, **options):
    state = make_state(**options)
    state.model.load_state_dict(load_model(str(path)).state_dict())
    restore_state(path, state)
    return state


def test_a_checkpoint_is_a_whole_folder_with_these_files(make_state, save):
    path = save(make_state())
    assert {file.name for file in path.iterdir()} == FILES
    verify_directory(path)


@pytest.mark.parametrize("is_scaled", [False, True], ids=["fp32", "with the scaler of fp16"])
def test_a_restored_state_takes_the_same_steps(make_state, make_plan, save, is_scaled):
    state, plan = make_state(is_scaled=is_scaled), make_plan()
    steps(state, plan, 2)
    state.progress.scores = Scores(loss=1.0)
    restored = loaded(save(state), make_state, is_scaled=is_scaled)
    assert restored.progress == state.progress
    assert restored.scaler.state_dict() == state.scaler.state_dict()
    assert steps(restored, plan, 3) == steps(state, plan, 3)
    assert restored.scaler.get_scale() == state.scaler.get_scale()
    for one, other in zip(state.model.parameters(), restored.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_without_the_optimizer_the_steps_would_be_others(make_state, make_plan, save):
    """Shows that the test above can fail."""
    state, plan = make_state(), make_plan()
    steps(state, plan, 2)
    path = save(state)
    fresh = make_state()
    fresh.model.load_state_dict(load_model(str(path)).state_dict())
    fresh.progress.step = 2
    assert steps(fresh, plan, 3) != steps(state, plan, 3)


def test_saving_a_restored_state_writes_the_same_tensors(make_state, make_plan, save):
    state = make_state()
    steps(state, make_plan(), 2)
    path = save(state)
    before = {name: (path / name).read_bytes() for name in ("model.safetensors", OPTIMIZER_FILE, "state.json")}
    assert save(loaded(path, make_state)) == path
    assert {name: (path / name).read_bytes() for name in before} == before


def test_the_first_checkpoint_has_no_moments_and_restores(make_state, make_plan, save):
    path = save(make_state())
    assert load_file(path / OPTIMIZER_FILE) == {}
    assert steps(loaded(path, make_state), make_plan(), 2) == steps(make_state(), make_plan(), 2)


def test_a_parameter_that_never_had_a_gradient_needs_no_moments(make_state, make_plan, save):
    state = make_state()
    state.model.transformer.wpe.weight.requires_grad_(False)
    steps(state, make_plan(), 1)
    path = save(state)
    assert not any("wpe" in name for name in load_file(path / OPTIMIZER_FILE))
    loaded(path, make_state)


def test_a_run_that_drops_fp16_leaves_the_scaler_behind(make_state, make_plan, save):
    state = make_state(is_scaled=True)
    steps(state, make_plan(), 1)
    assert not loaded(save(state), make_state).scaler.is_enabled()


def test_labels_name_what_the_checkpoint_became(make_state, save):
    events, state = [], make_state()
    for step, loss in ((0, None), (1, 2.0), (2, 3.0)):
        state.progress.step, state.progress.scores = step, None if loss is None else Scores(loss=loss, metric=1 / loss)
        save(state, keep=1, report=events.append)
    assert all(isinstance(event, CheckpointSaved) for event in events)
    assert [(event.step, event.labels) for event in events] == [
        (0, ("last",)), (1, ("last", "best-loss", "best-metric")), (2, ("last",)),
    ]  # fmt: skip


def test_pruning_happens_after_the_save(make_state, save, run):
    state = make_state()
    for step in range(4):
        state.progress.step = step
        save(state, keep=2)
    assert run.checkpoint_steps() == [2, 3]


# What is refused


@pytest.mark.parametrize("where", ["weight", "moment"])
def test_nothing_that_is_not_finite_is_published(make_state, make_plan, save, run, where):
    state = make_state()
    steps(state, make_plan(), 1)
    weight = state.model.transformer.ln_f.weight
    with torch.no_grad():
        (weight if where == "weight" else state.optimizer.state[weight]["exp_avg_sq"])[3] = torch.inf
    with pytest.raises(DivergedError, match=r"step 1: transformer\.ln_f\.weight.* is not finite"):
        save(state)
    assert run.checkpoint_steps() == []


@pytest.mark.parametrize("limit", [300, 3000, 30_000, 60_000])
def test_a_full_disk_is_named_whichever_library_writes_and_the_last_checkpoint_stays(make_state, save, run, limit):
    state = make_state()
    path = save(state)
    state.progress.step = 1
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(DiskError, match="step-00000001: File too large"):
            save(state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    verify_directory(path)
    assert [entry.name for entry in run.checkpoints.iterdir()] == [path.name]


def test_an_optimizer_of_another_model_is_refused_by_name(make_state, make_plan, save):
    state = make_state()
    steps(state, make_plan(), 1)
    path = save(state)
    tensors = load_file(path / OPTIMIZER_FILE)
    name = "transformer.wte.weight|exp_avg"
    for changed, message in (
        (
            {**tensors, name: tensors[name][:-1]},
            r"holds transformer\.wte\.weight\|exp_avg \(\d+, 16\), which does not fit",
        ),
        ({**tensors, "other|exp_avg": tensors[name].clone()}, r"holds other\|exp_avg"),
    ):
        save_file(changed, path / OPTIMIZER_FILE)
        with pytest.raises(CheckpointError, match=message):
            restore_state(path, make_state())


@pytest.mark.parametrize("content", [None, b"", b"no tensors"])
def test_a_missing_or_broken_optimizer_is_named(make_state, save, content):
    path = save(make_state())
    (path / OPTIMIZER_FILE).unlink()
    if content is not None:
        (path / OPTIMIZER_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors: cannot be read"):
        restore_state(path, make_state())
