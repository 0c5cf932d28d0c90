"""The folder that a path opens, and a run that deletes its checkpoint while it is being read."""

from __future__ import annotations

import pytest

from convo_cli.errors import CheckpointError, UsageError
from convo_cli.runs.checkpoints import Progress, SavedState
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.opening import load_from, open_checkpoint
from convo_cli.storage.atomic import publish_directory, remove_directory
from convo_cli.storage.sealed import MANIFEST_FILE


def save(run, step):
    def fill(folder):
        (folder / "state.json").write_text(
            SavedState(progress=Progress(step=step), scaler={}).model_dump_json()
        )
        (folder / "model.safetensors").write_text(f"weights of {step}")

    publish_directory(run.checkpoint(step), fill)


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "convo")
    run.checkpoints.mkdir(parents=True)
    run.config.write_text("{}")
    for step in (10, 30, 40):
        save(run, step)
    return run


@pytest.fixture
def notices():
    return []


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# What a path means


def test_a_run_directory_opens_its_newest_checkpoint(run, notices):
    assert open_checkpoint(run.path, notices.append).path == run.checkpoint(40)


def test_reading_a_run_with_a_damaged_newest_checkpoint_warns_and_changes_nothing(run, notices):
    (run.checkpoint(40) / "model.safetensors").write_text("weights of 41")
    before = contents(run.path)
    assert open_checkpoint(run.path, notices.append).path == run.checkpoint(30)
    assert [notice.is_warning for notice in notices] == [True]
    assert "model.safetensors: damaged" in notices[0].message
    assert "loading step-00000030 instead" in notices[0].message
    assert contents(run.path) == before


@pytest.mark.parametrize("name", ["step-00000010", "step-00000010.damaged", "other"])
def test_a_folder_among_a_runs_checkpoints_is_refused_without_its_manifest(run, notices, name):
    folder = run.checkpoint(10).rename(run.checkpoints / name)
    (folder / MANIFEST_FILE).unlink()
    (folder / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: missing"):
        open_checkpoint(folder, notices.append)


def test_a_checkpoint_and_an_export_open_as_they_are_once_verified(run, notices, tmp_path):
    export = tmp_path / "export"
    publish_directory(export, lambda folder: (folder / "model.safetensors").write_text("x"))
    for path in (run.checkpoint(10), export):
        assert open_checkpoint(path, notices.append).path == path
        (path / "model.safetensors").write_text("y")
        with pytest.raises(CheckpointError, match="damaged"):
            open_checkpoint(path, notices.append)


def test_a_checkpoint_that_lost_its_manifest_is_refused_and_a_foreign_folder_is_not(
    run, notices, tmp_path
):
    (run.checkpoint(10) / MANIFEST_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"MANIFEST\.json: missing"):
        open_checkpoint(run.checkpoint(10), notices.append)
    assert open_checkpoint(tmp_path, notices.append).path == tmp_path


def test_a_path_that_is_missing_or_a_file_is_a_usage_error(run, notices):
    with pytest.raises(UsageError, match="nowhere: no such file or directory"):
        open_checkpoint(run.path / "nowhere", notices.append)
    with pytest.raises(UsageError, match=r"config\.yaml: not a directory"):
        open_checkpoint(run.config, notices.append)


# A run that trains meanwhile


def prune(run, old, new):
    """Prune as a save does that keeps one checkpoint."""
    save(run, new)
    for step in old:
        remove_directory(run.checkpoint(step))


def test_a_checkpoint_that_is_deleted_while_it_loads_gives_way_to_the_newest_then(run, notices):
    def load(opened):
        folder = opened.path
        if folder == run.checkpoint(40):
            prune(run, (10, 30, 40), 50)
        return (folder / "model.safetensors").read_text()

    assert load_from(run.path, notices.append, load) == "weights of 50"
    (notice,) = notices
    assert (notice.is_warning, notice.message) == (
        False,
        "step-00000040 was deleted by its training run while it was being read; selecting again",
    )


def test_a_checkpoint_that_is_deleted_while_it_is_verified_is_no_damaged_one(
    run, notices, monkeypatch
):
    from convo_cli.runs import checkpoints

    verify = checkpoints.verify_directory

    def verify_late(path):
        if path == run.checkpoint(40):
            prune(run, (10, 30, 40), 50)
        return verify(path)

    monkeypatch.setattr(checkpoints, "verify_directory", verify_late)
    assert open_checkpoint(run.path, notices.append).path == run.checkpoint(50)
    assert notices == []


def test_what_fails_for_another_reason_is_not_tried_again(run, notices):
    folders = []

    def load(opened):
        folder = opened.path
        folders.append(folder)
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        load_from(run.path, notices.append, load)
    assert folders == [run.checkpoint(40)]


def test_a_checkpoint_that_was_named_itself_is_not_replaced_by_another(run, notices):
    def load(opened):
        folder = opened.path
        prune(run, (10,), 50)
        return (folder / "model.safetensors").read_text()

    with pytest.raises(CheckpointError, match="step-00000010: deleted while it was being read"):
        load_from(run.checkpoint(10), notices.append, load)


def test_a_run_that_deletes_faster_than_one_can_read_is_an_error(run, notices):
    def load(opened):
        folder = opened.path
        step = int(folder.name.removeprefix("step-"))
        prune(run, (step,), step + 10)
        return (folder / "model.safetensors").read_text()

    with pytest.raises(CheckpointError, match="deleted faster than they can be read"):
        load_from(run.path, notices.append, load)
    assert len(notices) == 5
