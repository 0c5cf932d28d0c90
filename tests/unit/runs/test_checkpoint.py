"""Which checkpoint last, loss and metric mean, which stay on disk, and that damage never chooses another in silence."""

from __future__ import annotations

import json
import math
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from convo_cli.errors import CheckpointError, UsageError
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
)
from convo_cli.runs.layout import RunDirectory


def save(run, step, loss=None, metric=None):
    progress = Progress(step=step, scores=None if loss is None else Scores(loss=loss, metric=metric))
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


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning_that_names_the_file(scored, notices):
    (scored.checkpoint(40) / "model.safetensors").unlink()
    (scored.checkpoint(30) / "state.json").write_text("{}")
    assert find_checkpoint(scored, "last", notices.append).progress.step == 20
    assert [notice.is_warning for notice in notices] == [True, True]
    assert "step-00000040/model.safetensors: missing" in notices[0].message
    assert "step-00000030/state.json: damaged" in notices[1].message


def test_a_run_without_a_whole_checkpoint_is_an_error(run, notices):
    with pytest.raises(CheckpointError, match="there is no whole checkpoint to load"):
        find_checkpoint(run, "last", notices.append)
    save(run, 3)
    (run.checkpoint(3) / MANIFEST_FILE).unlink()
    with pytest.raises(CheckpointError, match="there is no whole checkpoint to load"):
        find_checkpoint(run, "last", notices.append)


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


def test_damaged_weights_of_another_checkpoint_do_not_keep_the_best_from_loading(scored, notices):
    (scored.checkpoint(40) / "model.safetensors").unlink()
    assert find_checkpoint(scored, "loss", notices.append).progress.step == 20


# What a path means


def test_a_run_directory_opens_its_newest_checkpoint(scored, notices):
    assert open_checkpoint(scored.path, notices.append) == scored.checkpoint(40)


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
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: not found"):
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


@pytest.mark.parametrize("content", ["", "{}", '{"format": 2, "progress": {}, "scaler": {}}', '{"format": 1, "x": 1}'])
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
    labels = point_and_prune(scored, keep=9)
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


def test_a_pointer_whose_score_is_gone_goes_too_and_wrong_ones_are_rewritten(scored):
    point_and_prune(scored, keep=9)
    for step in (10, 20, 30):
        shutil.rmtree(scored.checkpoint(step))
    scored.pointer("last").write_text("nonsense")
    assert point_and_prune(scored, keep=9) == {"last": scored.checkpoint(40)}
    assert json.loads(scored.pointer("last").read_text())["step"] == 40
    assert not scored.pointer("best-loss").exists()
    assert not scored.pointer("best-metric").exists()


def test_a_damaged_checkpoint_is_neither_counted_nor_deleted(scored):
    (scored.checkpoint(40) / "state.json").write_text("{")
    point_and_prune(scored, keep=1)
    assert scored.checkpoint_steps() == [10, 20, 30, 40]


SCORE = st.one_of(st.none(), st.tuples(st.integers(1, 4), st.one_of(st.none(), st.integers(1, 4))))


@settings(max_examples=30, deadline=None)
@given(scores=st.lists(SCORE, min_size=1, max_size=8), keep=st.integers(1, 4))
def test_the_newest_and_both_best_stay_and_all_others_go(tmp_path_factory, scores, keep):
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    for step, score in enumerate(scores):
        save(run, step, *(score or ()))
    point_and_prune(run, keep=keep)
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
