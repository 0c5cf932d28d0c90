"""The folder that a path opens, and a run that deletes its checkpoint while it is being read."""

from __future__ import annotations

import pytest

from convo_cli.errors import CheckpointError, UsageError
from convo_cli.events import EvaluationDone
from convo_cli.runs.checkpoints import Progress, SavedState
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.evaluations import weights_of
from convo_cli.runs.logs.event_log import MetricsLog
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


# The best checkpoint


def evaluate(run, step, loss):
    log = MetricsLog(run.metrics, run.samples, after_step=step)
    log(EvaluationDone(step, loss, 1.0, 9, 0.5, weights=weights_of(run.checkpoint(step))))
    log.close()


@pytest.fixture
def scored(run):
    """Best by loss at 30."""
    for step, loss in ((10, 3.0), (30, 1.0), (40, 2.0)):
        evaluate(run, step, loss)
    return run


@pytest.mark.parametrize(("which", "step"), [(None, 30), ("loss", 30), ("last", 40)])
def test_an_evaluated_run_opens_its_best_checkpoint_and_last_the_newest(
    scored, notices, which, step
):
    assert open_checkpoint(scored.path, notices.append, which).path == scored.checkpoint(step)
    assert notices == []


@pytest.mark.parametrize("file", ["model.safetensors", "state.json"])
def test_with_a_damaged_best_checkpoint_the_default_warns_once_and_opens_the_newest(
    scored, notices, file
):
    (scored.checkpoint(30) / file).write_text("{}")
    with pytest.raises(CheckpointError, match=f"{file}: damaged") as caught:
        open_checkpoint(scored.path, notices.append, "loss")
    assert caught.value.hint == "use --load last"
    assert open_checkpoint(scored.path, notices.append).path == scored.checkpoint(40)
    (notice,) = notices
    assert notice.is_warning
    assert f"step-00000030/{file}: damaged" in notice.message
    assert notice.message.endswith("; loading step-00000040 instead, the newest intact checkpoint")


def test_a_damaged_newest_checkpoint_is_reported_once_although_two_searches_meet_it(
    scored, notices
):
    (scored.checkpoint(40) / "state.json").write_text("{}")
    assert open_checkpoint(scored.path, notices.append).path == scored.checkpoint(30)
    assert [notice.is_warning for notice in notices] == [True]


def test_a_log_that_cannot_be_read_makes_the_best_uncertain(scored, notices):
    scored.metrics.unlink()
    scored.metrics.mkdir()
    assert open_checkpoint(scored.path, notices.append).path == scored.checkpoint(40)
    (notice,) = notices
    assert notice.is_warning
    assert "metrics.jsonl" in notice.message


def test_a_choice_needs_a_run_directory(scored, notices, tmp_path):
    export = tmp_path / "export"
    publish_directory(export, lambda folder: (folder / "model.safetensors").write_text("x"))
    with pytest.raises(UsageError, match="export is not a run directory"):
        open_checkpoint(export, notices.append, "last")
    with pytest.raises(UsageError, match="step-00000030 is a checkpoint already") as caught:
        open_checkpoint(scored.checkpoint(30), notices.append, "last")
    assert f"{scored.path} --load last" in str(caught.value.hint)


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


def improve(run):
    """Save and score a better checkpoint, and prune the best one so far."""
    save(run, 50)
    evaluate(run, 50, 0.5)
    remove_directory(run.checkpoint(30))


@pytest.mark.parametrize("which", [None, "loss"])
def test_a_best_checkpoint_that_is_deleted_while_it_loads_gives_way_to_the_best_then(
    scored, notices, which
):
    def load(opened):
        if opened.path == scored.checkpoint(30):
            improve(scored)
        return (opened.path / "model.safetensors").read_text()

    assert load_from(scored.path, notices.append, load, which) == "weights of 50"
    (notice,) = notices
    assert not notice.is_warning
    assert notice.message.startswith("step-00000030 was deleted by its training run")


@pytest.mark.parametrize("which", [None, "loss"])
@pytest.mark.parametrize("reader", ["verify_file", "verify_directory", "read_checkpoint"])
def test_a_best_checkpoint_that_is_deleted_while_it_is_selected_is_no_missing_one(
    scored, notices, monkeypatch, which, reader
):
    from convo_cli.runs import selection

    read = getattr(selection, reader)

    def read_late(*arguments):
        if scored.checkpoint(30).exists():
            improve(scored)
        return read(*arguments)

    monkeypatch.setattr(selection, reader, read_late)
    assert open_checkpoint(scored.path, notices.append, which).path == scored.checkpoint(50)
    assert notices == []


@pytest.mark.parametrize("which", [None, "loss"])
def test_a_better_checkpoint_that_is_saved_while_one_is_selected_is_no_missing_one(
    scored, notices, monkeypatch, which
):
    from convo_cli.runs import selection

    read = selection.read_evaluations

    def read_late(run):
        if not run.checkpoint(50).exists():
            save(run, 50)
            evaluate(run, 50, 0.5)
        return read(run)

    monkeypatch.setattr(selection, "read_evaluations", read_late)
    assert open_checkpoint(scored.path, notices.append, which).path == scored.checkpoint(50)
    assert notices == []
