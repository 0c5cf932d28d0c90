"""The content of a checkpoint: everything the next step needs, finite, and never half written."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from convo_cli.errors import CheckpointError, DiskError, DivergedError
from convo_cli.events import CheckpointSaved
from convo_cli.model.loading import load_model
from convo_cli.runs.directory import RunDirectory
from convo_cli.storage.sealed import verify_directory
from convo_cli.text.spiece.piece_model import SpieceFile
from convo_cli.training.loop import train_step
from convo_cli.training.saving import (
    OPTIMIZER_FILE,
    load_checkpoint_model,
    restore_state,
    save_checkpoint,
)
from tests.full_disk import file_size_limit
from tests.sharded import split_checkpoint

FILES = {
    "MANIFEST.json", "chat_template.jinja", "config.json", "dialogue.json",
    "generation_config.json", "model.safetensors", "optimizer.safetensors", "spiece.model",
    "state.json", "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    return run


@pytest.fixture
def save(run, encoder, spiece, ignore):
    def save_state(state, *, emit=ignore):
        save_checkpoint(run, state, encoder, spiece=SpieceFile("spiece.model", spiece), emit=emit)
        return run.checkpoint(state.progress.step)

    return save_state


def steps(state, job, number):
    """Losses of some steps."""
    return [train_step(state, job).loss for _ in range(number)]


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
def test_a_restored_state_takes_the_same_steps(make_state, make_job, save, is_scaled):
    state, job = make_state(is_scaled=is_scaled), make_job()
    steps(state, job, 2)
    state.progress.best_loss = 1.0
    restored = loaded(save(state), make_state, is_scaled=is_scaled)
    assert restored.progress == state.progress
    assert restored.scaler.state_dict() == state.scaler.state_dict()
    assert steps(restored, job, 3) == steps(state, job, 3)
    assert restored.scaler.get_scale() == state.scaler.get_scale()
    for one, other in zip(state.model.parameters(), restored.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_without_the_optimizer_the_steps_would_be_others(make_state, make_job, save):
    """Shows that the test above can fail."""
    state, job = make_state(), make_job()
    steps(state, job, 2)
    path = save(state)
    fresh = make_state()
    fresh.model.load_state_dict(load_model(str(path)).state_dict())
    fresh.progress.step = 2
    assert steps(fresh, job, 3) != steps(state, job, 3)


def test_saving_a_restored_state_writes_the_same_tensors(make_state, make_job, save):
    state = make_state()
    steps(state, make_job(), 2)
    path = save(state)
    before = {
        name: (path / name).read_bytes()
        for name in ("model.safetensors", OPTIMIZER_FILE, "state.json")
    }
    assert save(loaded(path, make_state)) == path
    assert {name: (path / name).read_bytes() for name in before} == before


def test_the_first_checkpoint_has_no_moments_and_restores(make_state, make_job, save):
    path = save(make_state())
    assert load_file(path / OPTIMIZER_FILE) == {}
    assert steps(loaded(path, make_state), make_job(), 2) == steps(make_state(), make_job(), 2)


def test_a_parameter_that_never_had_a_gradient_needs_no_moments(make_state, make_job, save):
    state = make_state()
    state.model.transformer.wpe.weight.requires_grad_(False)
    steps(state, make_job(), 1)
    path = save(state)
    assert not any("wpe" in name for name in load_file(path / OPTIMIZER_FILE))
    loaded(path, make_state)


def test_a_run_that_drops_fp16_leaves_the_scaler_behind(make_state, make_job, save):
    state = make_state(is_scaled=True)
    steps(state, make_job(), 1)
    assert not loaded(save(state), make_state).scaler.is_enabled()


def test_a_save_is_reported_and_deletes_nothing(make_state, save, run):
    events, state = [], make_state()
    for step in range(4):
        state.progress.step = step
        save(state, emit=events.append)
    assert events == [CheckpointSaved(step, run.checkpoint(step)) for step in range(4)]
    assert run.checkpoint_steps() == [0, 1, 2, 3]


def test_a_checkpoint_of_shards_restores_the_same_state(make_state, make_job, save):
    state, job = make_state(), make_job()
    steps(state, job, 2)
    path = split_checkpoint(save(state))
    verify_directory(path)
    restored = loaded(path, make_state)
    restored.model.load_state_dict(load_checkpoint_model(path).state_dict())
    assert steps(restored, job, 3) == steps(state, job, 3)


# What is refused


@pytest.mark.parametrize("kind", ["model", "optimizer"])
def test_a_checkpoint_without_one_of_its_shards_is_refused_by_name(
    make_state, make_job, save, kind
):
    state = make_state()
    steps(state, make_job(), 1)
    path = split_checkpoint(save(state))
    (path / f"{kind}-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=rf"{kind}-00002-of-00002\.safetensors: missing"):
        verify_directory(path)
    with pytest.raises(CheckpointError, match=rf"{kind}-00002-of-00002\.safetensors: missing"):
        restore_state(path, state) if kind == "optimizer" else load_checkpoint_model(path)


def test_shards_of_rounded_weights_are_refused(make_state, save):
    path = split_checkpoint(save(make_state()))
    file = path / "model-00002-of-00002.safetensors"
    rounded = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(rounded, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"00002\.safetensors: .* is BF16, but the run"):
        load_checkpoint_model(path)


@pytest.mark.parametrize("where", ["weight", "moment", "buffer"])
@pytest.mark.parametrize(
    "values", [[torch.inf], [-torch.inf], [torch.nan], [torch.inf, -torch.inf]], ids=str
)
def test_nothing_that_is_not_finite_is_published(make_state, make_job, save, run, where, values):
    state = make_state()
    steps(state, make_job(), 1)
    norm = state.model.transformer.ln_f
    norm.register_buffer("scale", torch.ones(16))
    tensor = {
        "weight": norm.weight,
        "moment": state.optimizer.state[norm.weight]["exp_avg_sq"],
        "buffer": norm.scale,
    }[where]
    with torch.no_grad():
        tensor[3 : 3 + len(values)] = torch.tensor(values)
    with pytest.raises(
        DivergedError, match=r"step 1: transformer\.ln_f\.(weight|scale).* is no longer finite"
    ) as caught:
        save(state)
    assert caught.value.exit_code == 4
    assert list(run.path.rglob("*")) == [run.checkpoints]


def test_finite_numbers_whose_sum_is_not_are_published(make_state, save):
    state = make_state()
    with torch.no_grad():
        state.model.transformer.wte.weight.fill_(3e38)
    verify_directory(save(state))


@pytest.mark.parametrize("num_steps", [0, 2])
def test_what_is_asked_of_the_disk_is_enough_and_not_much_more(
    make_state, make_job, save, monkeypatch, num_steps
):
    state = make_state()
    steps(state, make_job(), num_steps)
    asked = []

    def usage(path):
        asked.append(path)
        return 2**40, 0, free

    monkeypatch.setattr(shutil, "disk_usage", usage)
    free = 2**40
    path = save(state)
    size = sum(file.stat().st_size for file in path.iterdir())
    free = size
    with pytest.raises(DiskError, match="step-0000000"):
        save(state)
    free = 2 * size + 2**19
    save(state)
    assert asked == [path.parent] * 3


def test_with_too_little_space_nothing_is_written(make_state, save, run, monkeypatch):
    state = make_state()
    path = save(state)
    state.progress.step = 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (2**40, 2**40 - 1000, 1000))
    message = r"step-00000001: needs \d\.\d MiB, but only 0\.0 MiB is free in .*checkpoints"
    with pytest.raises(DiskError, match=message) as caught:
        save(state)
    assert caught.value.exit_code == 7
    verify_directory(path)
    assert [entry.name for entry in run.checkpoints.iterdir()] == [path.name]


def test_nothing_is_written_through_a_link(make_state, save, run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    run.checkpoints.rmdir()
    run.checkpoints.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(CheckpointError, match="checkpoints: a symbolic link"):
        save(make_state())
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("limit", [300, 3000, 30_000, 60_000])
def test_a_full_disk_is_named_whichever_library_writes_and_the_last_checkpoint_stays(
    make_state, save, run, limit
):
    state = make_state()
    path = save(state)
    state.progress.step = 1
    with file_size_limit(limit), pytest.raises(DiskError, match="step-00000001: File too large"):
        save(state)
    verify_directory(path)
    assert [entry.name for entry in run.checkpoints.iterdir()] == [path.name]


WTE = "transformer.wte.weight|exp_avg"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: {**tensors, WTE: tensors[WTE][:-1]},
            r"wte\.weight\|exp_avg is float32 \(903, 16\), but the model has float32 \(904, 16\)",
        ),
        (
            lambda tensors: {**tensors, WTE: tensors[WTE].bfloat16()},
            r"exp_avg is bfloat16 \(904, 16\), but the model has float32 \(904, 16\)",
        ),
        (
            lambda tensors: {**tensors, "transformer.wte.weight|step": torch.zeros(3)},
            r"wte\.weight\|step is float32 \(3,\), but the model has float32 \(\)",
        ),
        (
            lambda tensors: {**tensors, "other|exp_avg": tensors[WTE].clone()},
            r"holds other\|exp_avg float32 \(904, 1",
        ),
        (
            lambda tensors: {**tensors, "transformer.wte.weight|momentum": tensors[WTE].clone()},
            r"holds .*\|momentum",
        ),
        (
            lambda tensors: {key: tensors[key] for key in tensors.keys() - {WTE}},
            r"wte\.weight\|exp_avg is missing",
        ),
        (lambda tensors: {}, "is empty, but the checkpoint is that of step 1"),
    ],
    ids=["shape", "dtype", "step", "name", "kind", "missing", "empty"],
)
def test_an_optimizer_of_another_model_is_refused_by_name(
    make_state, make_job, save, change, message
):
    state = make_state()
    steps(state, make_job(), 1)
    path = save(state)
    save_file(change(load_file(path / OPTIMIZER_FILE)), path / OPTIMIZER_FILE)
    fresh = make_state()
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors: .*" + message):
        restore_state(path, fresh)
    assert fresh.progress.step == 0
    assert not fresh.optimizer.state


def test_moments_of_a_parameter_that_is_not_trained_are_refused(make_state, make_job, save):
    state = make_state()
    steps(state, make_job(), 1)
    path = save(state)
    frozen = make_state()
    frozen.model.transformer.wte.weight.requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"holds transformer\.wte\.weight\|.* does not fit"):
        restore_state(path, frozen)


def test_a_scaler_that_is_none_is_refused(make_state, save):
    path = save(make_state(is_scaled=True))
    state = json.loads((path / "state.json").read_text())
    del state["scaler"]["growth_factor"]
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(
        CheckpointError, match=r"state\.json: the scaler has .*, but torch's has .*growth_factor"
    ):
        restore_state(path, make_state(is_scaled=True))


@pytest.mark.parametrize("damage", ["rounded", "shape", "missing", "torn", "nan"])
def test_weights_that_do_not_fit_are_refused_by_name(make_state, save, damage):
    path = save(make_state())
    file = path / "model.safetensors"
    name, tensors = "transformer.wpe.weight", load_file(file)
    if damage == "rounded":
        tensors[name] = tensors[name].bfloat16()
    elif damage == "shape":
        tensors[name] = tensors[name][:-1].clone()
    elif damage == "nan":
        tensors[name][3] = torch.nan
    else:
        del tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})
    if damage == "torn":
        file.write_bytes(file.read_bytes()[:100])
    message = {
        "rounded": r"transformer\.wpe\.weight is BF16, but the run trains in F32",
        "shape": r"wpe\.weight has the shape 63 x 16 in the weights, but 64 x 16 by config\.json",
        "missing": r"the weights lack the tensor transformer\.wpe\.weight",
        "torn": r"model\.safetensors: cannot be read",
        "nan": r"transformer\.wpe\.weight contains values that are not finite",
    }[damage]
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint_model(path)
    assert caught.value.exit_code == 5


def test_weights_come_back_as_they_were_saved(make_state, make_job, save):
    state = make_state()
    steps(state, make_job(), 2)
    saved = load_checkpoint_model(save(state)).state_dict()
    assert all(
        torch.equal(tensor, saved[name]) for name, tensor in state.model.state_dict().items()
    )


@pytest.mark.parametrize("content", [None, b"", b"no tensors"])
def test_a_missing_or_broken_optimizer_is_named(make_state, save, content):
    path = save(make_state())
    (path / OPTIMIZER_FILE).unlink()
    if content is not None:
        (path / OPTIMIZER_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors: cannot be read"):
        restore_state(path, make_state())
