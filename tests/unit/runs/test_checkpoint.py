"""Which checkpoint last, loss and metric mean, which stay on disk, and that damage never chooses another in silence."""

from __future__ import annotations

import json
import math
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from convo_cli.errors import CheckpointError, DiskError, UsageError
from convo_cli.runs.atomic import MANIFEST_FILE, publish_directory, verify_directory
from convo_cli.runs.checkpoint import (
    Progress,
    SavedPointer,
    SavedState,
    Scores,
    find_checkpoint,
    list_checkpoints,
    open_checkpoint,
    point_and_prune,
    read_state,
    require_own_checkpoints,
)
from convo_cli.runs.layout import RunDirectory


def save(run, step, loss=None, metric=None, **progress):
    progress = Progress(step=step, scores=None if loss is None else Scores(loss=loss, metric=metric), **progress)
    state = SavedState(progress=progress, scaler={})

    def fill(folder):
        (folder / "state.json").write_text(state.model_dump_json())
        (folder / "model.safetensors").write_text(f"weights of {step}")

    publish_directory(run.checkpoint(step), fill)


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "convo")
    run.checkpoints.mkdir(parents=True)
    run.config.write_text("{}")
    return run


@pytest.fixture
def scored(run):
    """Best by loss at 20, best by metric at 10."""
    for step, loss, metric in ((0, None, None), (10, 3.0, 9.0), (20, 2.0, 5.0), (30, 2.5, 1.0), (40, None, None)):
        save(run, step, loss, metric)
    return run


@pytest.fixture
def notices():
    return []


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# Which one


@pytest.mark.parametrize(("which", "step"), [("last", 40), ("loss", 20), ("metric", 10)])
def test_each_name_means_the_checkpoint_whose_own_weights_have_that_score(scored, notices, which, step):
    found = find_checkpoint(scored, which, notices.append)
    assert (found.path, found.progress.step) == (scored.checkpoint(step), step)
    assert notices == []


@pytest.mark.parametrize("which", ["loss", "metric"])
def test_of_equal_scores_the_earlier_checkpoint_is_the_best(run, notices, which):
    for step in (5, 6, 7):
        save(run, step, 2.0, 3.0)
    assert find_checkpoint(run, which, notices.append).progress.step == 5


@pytest.mark.parametrize("which", ["loss", "metric"])
def test_a_score_that_no_checkpoint_has_is_an_error_with_a_way_on(run, notices, which):
    save(run, 5)
    with pytest.raises(CheckpointError, match=f"no checkpoint has a validation {which} yet") as caught:
        find_checkpoint(run, which, notices.append)
    assert "--load last" in str(caught.value.hint)


def test_a_loss_without_a_metric_counts_for_loss_only(run, notices):
    save(run, 5, 2.0)
    save(run, 6, 3.0, 1.0)
    assert find_checkpoint(run, "loss", notices.append).progress.step == 5
    assert find_checkpoint(run, "metric", notices.append).progress.step == 6


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_damaged_newest_checkpoint_is_set_aside_with_a_warning_that_names_the_file(scored, notices):
    (scored.checkpoint(40) / "model.safetensors").unlink()
    (scored.checkpoint(30) / "state.json").write_text("{}")
    (scored.checkpoints / "step-00000030.damaged").mkdir()
    before = contents(scored.checkpoint(40))
    assert find_checkpoint(scored, "last", notices.append).progress.step == 20
    assert [notice.is_warning for notice in notices] == [True, True]
    assert "step-00000040/model.safetensors: missing; set aside as step-00000040.damaged" in notices[0].message
    assert "step-00000030/state.json: damaged" in notices[1].message
    assert "set aside as step-00000030.damaged-2, going back to step-00000020" in notices[1].message
    assert scored.checkpoint_steps() == [0, 10, 20]
    assert contents(scored.checkpoints / "step-00000040.damaged") == before, "nothing of it is deleted"
    assert (scored.checkpoints / "step-00000030.damaged-2" / "state.json").read_text() == "{}"


def test_a_damaged_checkpoint_that_is_not_the_newest_stays_where_it_is(scored, notices):
    (scored.checkpoint(20) / "model.safetensors").unlink()
    assert find_checkpoint(scored, "last", notices.append).progress.step == 40
    assert notices == []
    assert 20 in scored.checkpoint_steps()


@pytest.mark.parametrize("which", ["last", "loss", "metric"])
def test_what_one_may_not_read_is_not_set_aside(scored, notices, monkeypatch, which):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("convo_cli.runs.atomic.file_sha256", refuse)
    with pytest.raises(DiskError, match="Permission denied"):
        find_checkpoint(scored, which, notices.append)
    assert scored.checkpoint_steps() == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("which", ["last", "loss", "metric"])
def test_checkpoints_that_swapped_their_names_are_refused(scored, notices, which):
    scored.checkpoint(20).rename(scored.path / "between")
    scored.checkpoint(40).rename(scored.checkpoint(20))
    (scored.path / "between").rename(scored.checkpoint(40))
    if which == "last":
        assert find_checkpoint(scored, which, notices.append).progress.step == 30
        assert "step-00000040/state.json: the state of step 20, under the name of another" in notices[0].message
    else:
        with pytest.raises(CheckpointError, match="the state of step 40, under the name of another"):
            find_checkpoint(scored, which, notices.append)


def test_a_run_without_a_whole_checkpoint_is_an_error(run, notices):
    with pytest.raises(CheckpointError, match="there is no whole checkpoint to load"):
        find_checkpoint(run, "last", notices.append)
    save(run, 3)
    (run.checkpoint(3) / MANIFEST_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"there is no whole checkpoint to load; .*step-00000003/MANIFEST\.json"):
        find_checkpoint(run, "last", notices.append)
    assert run.checkpoint_steps() == [3], "where nothing else is left, nothing is moved"


@pytest.mark.parametrize(("which", "step"), [("loss", 20), ("metric", 10)])
def test_a_damaged_best_checkpoint_is_an_error_never_another_one(scored, notices, which, step):
    (scored.checkpoint(step) / "model.safetensors").write_text("weights of 99")
    with pytest.raises(CheckpointError, match=rf"step-000000{step}/model\.safetensors: damaged"):
        find_checkpoint(scored, which, notices.append)


@pytest.mark.parametrize("which", ["loss", "metric"])
@pytest.mark.parametrize("damage", ["delete", "break", "forge"])
def test_a_damaged_state_cannot_make_another_checkpoint_the_best(scored, notices, which, damage):
    state = scored.checkpoint({"loss": 20, "metric": 10}[which]) / "state.json"
    if damage == "delete":
        state.unlink()
    elif damage == "break":
        change(state, "{", "")
    else:  # still a state, with scores that nobody measured
        change(state, f'"{which}":', f'"{which}":{"9" if which == "loss" else "0"}')
    with pytest.raises(CheckpointError, match=r"state\.json: (missing|damaged)") as caught:
        find_checkpoint(scored, which, notices.append)
    assert "--load last" in str(caught.value.hint)


@pytest.mark.parametrize(("which", "step", "left"), [("loss", 20, "1.5"), ("metric", 10, "3")])
def test_a_best_checkpoint_that_is_gone_is_an_error_never_the_next_best(run, notices, which, step, left):
    save(run, 10, 1.5, 9.0, best_loss=1.5, best_metric=9.0)
    save(run, 20, 1.0, 3.0, best_loss=1.0, best_metric=9.0)
    save(run, 30, 2.0, 1.0, best_loss=1.0, best_metric=9.0)
    assert find_checkpoint(run, which, notices.append).progress.step == step
    shutil.rmtree(run.checkpoint(step))
    with pytest.raises(CheckpointError, match=rf"the best validation {which}, \d, is not .*, {left}$") as caught:
        find_checkpoint(run, which, notices.append)
    assert "--load last" in str(caught.value.hint)


def test_damaged_weights_of_another_checkpoint_do_not_keep_the_best_from_loading(scored, notices):
    (scored.checkpoint(40) / "model.safetensors").unlink()
    assert find_checkpoint(scored, "loss", notices.append).progress.step == 20


# What a path means


def test_a_run_directory_opens_its_newest_checkpoint(scored, notices):
    assert open_checkpoint(scored.path, notices.append) == scored.checkpoint(40)


def test_reading_a_run_with_a_damaged_newest_checkpoint_warns_and_changes_nothing(scored, notices):
    (scored.checkpoint(40) / "model.safetensors").write_text("weights of 41")
    before = contents(scored.path)
    assert open_checkpoint(scored.path, notices.append) == scored.checkpoint(30)
    assert [notice.is_warning for notice in notices] == [True]
    assert "model.safetensors: damaged" in notices[0].message
    assert "step-00000030 is opened instead" in notices[0].message
    assert contents(scored.path) == before


@pytest.mark.parametrize("name", ["step-00000010", "step-00000010.damaged", "other"])
def test_a_folder_among_a_runs_checkpoints_is_refused_without_its_manifest(scored, notices, name):
    folder = scored.checkpoint(10).rename(scored.checkpoints / name)
    (folder / MANIFEST_FILE).unlink()
    (folder / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: missing"):
        open_checkpoint(folder, notices.append)


def test_a_checkpoint_and_an_export_open_as_they_are_once_verified(scored, notices, tmp_path):
    export = tmp_path / "export"
    publish_directory(export, lambda folder: (folder / "model.safetensors").write_text("x"))
    for path in (scored.checkpoint(10), export):
        assert open_checkpoint(path, notices.append) == path
        (path / "model.safetensors").write_text("y")
        with pytest.raises(CheckpointError, match="damaged"):
            open_checkpoint(path, notices.append)


def test_a_checkpoint_that_lost_its_manifest_is_refused_and_a_foreign_folder_is_not(scored, notices, tmp_path):
    (scored.checkpoint(10) / MANIFEST_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: missing"):
        open_checkpoint(scored.checkpoint(10), notices.append)
    assert open_checkpoint(tmp_path, notices.append) == tmp_path


def test_a_path_that_is_missing_or_a_file_is_a_usage_error(run, notices):
    with pytest.raises(UsageError, match="nowhere: no such file or directory"):
        open_checkpoint(run.path / "nowhere", notices.append)
    with pytest.raises(UsageError, match=r"config\.yaml: not a directory"):
        open_checkpoint(run.config, notices.append)


# state.json


def test_a_state_is_read_back_as_it_was_written(tmp_path):
    progress = Progress(
        step=7, tokens_seen=2**40, elapsed_seconds=0.1, scores=Scores(loss=1 / 3, metric=0.0), best_loss=0.3,
        best_metric=1.5, evaluations_without_improvement=2,
    )  # fmt: skip
    written = SavedState(progress=progress, scaler={"scale": 65536.0, "growth_interval": 2000})
    (tmp_path / "state.json").write_text(written.model_dump_json())
    read = read_state(tmp_path)
    assert read == written
    assert {key: type(value) for key, value in read.scaler.items()} == {"scale": float, "growth_interval": int}


@pytest.mark.parametrize(
    "content",
    [
        "", "{}", '{"format": 2, "progress": {}, "scaler": {}}', '{"format": 1, "x": 1}',
        '{"progress": {"step": -1}, "scaler": {}}', '{"progress": {"step": 1, "tokens_seen": -1}, "scaler": {}}',
        '{"progress": {"step": 1}, "scaler": {"scale": NaN}}', '{"progress": {"best_loss": Infinity}, "scaler": {}}',
    ],
)  # fmt: skip
def test_a_state_that_convo_did_not_write_is_named(tmp_path, content):
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"state\.json: not a readable state"):
        read_state(tmp_path)


def test_a_missing_state_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"state\.json: No such file"):
        read_state(tmp_path)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_progress_holds_no_number_that_is_not_finite(bad):
    with pytest.raises(ValidationError):
        Scores(loss=bad)
    with pytest.raises(ValidationError):
        Progress().best_loss = bad


# Pointers and pruning


def test_pointers_name_relative_paths_and_the_progress_there(scored):
    labels = point_and_prune(scored, scored.checkpoint(40), keep=9)
    assert labels == {
        "last": scored.checkpoint(40),
        "best-loss": scored.checkpoint(20),
        "best-metric": scored.checkpoint(10),
    }
    for label, path in labels.items():
        pointer = SavedPointer.model_validate_json(scored.pointer(label).read_bytes())
        assert scored.path / pointer.checkpoint == path
        assert pointer.step == read_state(path).progress.step
    assert json.loads(scored.pointer("best-loss").read_text())["scores"] == {"loss": 2.0, "metric": 5.0}


def test_a_pointer_is_written_again_only_where_it_would_change(scored):
    point_and_prune(scored, scored.checkpoint(40), keep=9)
    save(scored, 50, 2.5, 9.5)
    scored.pointer("best-loss").unlink()
    scored.pointer("best-loss").mkdir()
    with pytest.raises(DiskError, match=r"best-loss\.json: Is a directory"):
        point_and_prune(scored, scored.checkpoint(50), keep=9)
    scored.pointer("best-loss").rmdir()
    point_and_prune(scored, scored.checkpoint(50), keep=9)
    pointers = [scored.pointer(label) for label in ("last", "best-loss", "best-metric")]
    assert [json.loads(pointer.read_text())["step"] for pointer in pointers] == [50, 20, 50]
    before = [pointer.stat().st_ino for pointer in pointers]
    point_and_prune(scored, scored.checkpoint(50), keep=9)
    assert [pointer.stat().st_ino for pointer in pointers] == before


def test_a_pointer_whose_score_is_gone_goes_too_and_wrong_ones_are_rewritten(scored):
    point_and_prune(scored, scored.checkpoint(40), keep=9)
    for step in (10, 20, 30):
        shutil.rmtree(scored.checkpoint(step))
    scored.pointer("last").write_text("nonsense")
    assert point_and_prune(scored, scored.checkpoint(40), keep=9) == {"last": scored.checkpoint(40)}
    assert json.loads(scored.pointer("last").read_text())["step"] == 40
    assert not scored.pointer("best-loss").exists()
    assert not scored.pointer("best-metric").exists()


@pytest.mark.parametrize("damage", ["state", "cut", "gone", "manifest"])
def test_a_damaged_checkpoint_is_neither_counted_nor_deleted(scored, damage):
    folder = scored.checkpoint(30)
    if damage == "state":
        (folder / "state.json").write_text("{")
    elif damage == "cut":
        (folder / "model.safetensors").write_text("w")
    else:
        (folder / ("model.safetensors" if damage == "gone" else MANIFEST_FILE)).unlink()
    save(scored, 35)
    point_and_prune(scored, scored.checkpoint(40), keep=2)
    assert scored.checkpoint_steps() == [10, 20, 30, 35, 40]


def test_what_was_just_sealed_stays_whatever_else_lies_there(run):
    """So that a whole checkpoint is left where all others are damaged in a way that only reading them would tell."""
    for step in (10, 20, 30):
        save(run, step)
        if step != 20:
            (run.checkpoint(step) / "model.safetensors").write_text("weights of 99")
    point_and_prune(run, run.checkpoint(20), keep=1)
    assert run.checkpoint_steps() == [20, 30]
    verify_directory(run.checkpoint(20))


def test_a_link_among_the_checkpoints_is_pruned_without_what_it_leads_to(scored, tmp_path):
    elsewhere = scored.checkpoint(0).rename(tmp_path / "elsewhere")
    scored.checkpoint(0).symlink_to(elsewhere, target_is_directory=True)
    point_and_prune(scored, scored.checkpoint(40), keep=1)
    assert scored.checkpoint_steps() == [10, 20, 40]
    verify_directory(elsewhere)


def test_checkpoints_that_are_a_link_out_of_the_run_are_refused(scored, tmp_path):
    require_own_checkpoints(scored)
    scored.checkpoints.rename(tmp_path / "elsewhere")
    scored.checkpoints.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(CheckpointError, match="checkpoints: a symbolic link"):
        require_own_checkpoints(scored)


SCORE = st.one_of(st.none(), st.tuples(st.integers(1, 4), st.one_of(st.none(), st.integers(1, 4))))


@settings(max_examples=30, deadline=None)
@given(scores=st.lists(SCORE, min_size=1, max_size=8), keep=st.integers(1, 4))
def test_the_newest_and_both_best_stay_and_all_others_go(tmp_path_factory, scores, keep):
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    for step, score in enumerate(scores):
        save(run, step, *(score or ()))
    point_and_prune(run, run.checkpoint(len(scores) - 1), keep=keep)
    by_loss = [step for step, score in enumerate(scores) if score]
    by_metric = [step for step in by_loss if scores[step][1] is not None]
    expected = set(range(len(scores))[-keep:])
    expected |= {min(by_loss, key=lambda step: scores[step][0])} if by_loss else set()
    expected |= {max(by_metric, key=lambda step: scores[step][1])} if by_metric else set()
    assert set(run.checkpoint_steps()) == expected
    assert [checkpoint.progress.step for checkpoint in list_checkpoints(run)] == sorted(expected)
    for step in expected:
        verify_directory(run.checkpoint(step))
    assert {path.name for path in run.checkpoints.iterdir()} == {run.checkpoint(step).name for step in expected}
