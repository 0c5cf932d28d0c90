"""Names in a run directory, and directories that are not runs."""

from __future__ import annotations

import pytest

from convo_cli.errors import CheckpointError, DiskError, UsageError
from convo_cli.runs.directory import RunDirectory, existing_run, require_new


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "runs" / "convo")
    run.checkpoints.mkdir(parents=True)
    run.config.write_text("{}")
    return run


def test_checkpoints_are_listed_by_step_and_nothing_else_is(run):
    for step in (1200, 0, 99_999_999, 123_456_789, 7):
        run.checkpoint(step).mkdir()
    for name in (".tmp-step-00000003-1", "step-4", "step-00000005.bak", "other"):
        (run.checkpoints / name).mkdir()
    (run.checkpoints / "step-00000006").write_text("a file")
    assert run.checkpoint_steps() == [0, 7, 1200, 99_999_999, 123_456_789]
    assert run.checkpoint(1200).name == "step-00001200"


def test_a_run_without_checkpoints_has_no_steps(tmp_path):
    assert RunDirectory(tmp_path).checkpoint_steps() == []


def test_every_name_is_inside_the_run_directory(run):
    paths = [
        run.config,
        run.info,
        run.metrics,
        run.samples,
        run.plots,
        run.tensorboard,
        run.dialogue,
        run.tokenizer,
        run.lock,
        run.stop,
        run.pointer("last"),
    ]
    assert all(path.parent == run.path for path in paths)
    assert len(set(paths)) == len(paths)
    assert run.pointer("best-loss").name == "best-loss.json"


def test_an_existing_run_is_found(run):
    assert existing_run(run.path) == run


def test_a_path_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="nowhere: no such run directory"):
        existing_run(tmp_path / "nowhere")


@pytest.mark.parametrize("missing", ["config", "checkpoints"])
def test_a_directory_that_is_no_run_is_refused(run, missing):
    run.config.unlink() if missing == "config" else run.checkpoints.rmdir()
    with pytest.raises(CheckpointError, match="convo: not a run directory"):
        existing_run(run.path)


def test_a_new_run_may_have_an_empty_directory_or_none(tmp_path):
    require_new(RunDirectory(tmp_path))
    require_new(RunDirectory(tmp_path / "runs" / "convo"))


def test_a_run_that_exists_is_not_overwritten_and_the_hint_resumes_it_where_it_can(run):
    with pytest.raises(CheckpointError, match="convo: already exists") as without:
        require_new(run)
    run.checkpoint(0).mkdir()
    with pytest.raises(CheckpointError, match="convo: already exists") as with_checkpoint:
        require_new(run)
    assert "resume" not in str(without.value.hint)
    assert f"convo resume {run.path}" in str(with_checkpoint.value.hint)
    assert with_checkpoint.value.exit_code == 5


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "convo").write_text("mine")
    with pytest.raises(CheckpointError, match="already exists"):
        require_new(RunDirectory(tmp_path / "convo"))
    with pytest.raises(DiskError, match="cannot be created"):
        require_new(RunDirectory(tmp_path / "convo" / "below"))
