"""The checkpoints of a run: read back as written, copied exactly, and refused if they differ."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from convo_cli.errors import CheckpointError
from convo_cli.runs.checkpoints import (
    Progress,
    SavedState,
    copy_checkpoint,
    is_saved,
    read_state,
    write_state,
)
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.evaluations import weights_of
from convo_cli.storage.atomic import publish_directory
from convo_cli.storage.sealed import verify_directory

METRIC = "bleu-4"


@pytest.fixture
def run(tmp_path):
    """A run with a checkpoint of step 10."""
    run = RunDirectory(tmp_path / "convo")
    run.checkpoints.mkdir(parents=True)

    def fill(folder):
        write_state(folder, SavedState(run_id="this", progress=Progress(step=10), scaler={}))
        (folder / "model.safetensors").write_text("weights")

    publish_directory(run.checkpoint(10), fill)
    return run


def test_a_copied_checkpoint_is_the_same_but_for_its_run(run, tmp_path):
    to = tmp_path / "step-00000010"
    copy_checkpoint(run.checkpoint(10), to, "another")
    verify_directory(to)
    assert read_state(to) == read_state(run.checkpoint(10)).model_copy(update={"run_id": "another"})
    assert "" != weights_of(to) == weights_of(run.checkpoint(10))


def test_a_file_that_changes_while_it_is_copied_is_named(run, tmp_path):
    (run.checkpoint(10) / "model.safetensors").write_text("weights of 99")
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: changed while it was being copied"
    ):
        copy_checkpoint(run.checkpoint(10), tmp_path / "fork", "another")


def test_a_step_is_saved_where_its_state_can_be_read(run):
    assert is_saved(run, 10)
    assert not is_saved(run, 11)
    (run.checkpoint(10) / "state.json").write_text("{")
    assert not is_saved(run, 10)


def test_a_state_is_read_back_as_it_was_written(tmp_path):
    progress = Progress(
        step=7, tokens_seen=2**40, elapsed_seconds=0.1, best_loss=1 / 3,
        best_metrics={METRIC: 1.5, "nist-2": 0.0}, evaluations_without_improvement=2,
    )  # fmt: skip
    written = SavedState(progress=progress, scaler={"scale": 65536.0, "growth_interval": 2000})
    (tmp_path / "state.json").write_text(written.model_dump_json())
    read = read_state(tmp_path)
    assert read == written
    assert {key: type(value) for key, value in read.scaler.items()} == {
        "scale": float,
        "growth_interval": int,
    }


@pytest.mark.parametrize(
    "content",
    [
        "", "{}", '{"format": 2, "x": 1}',
        '{"progress": {"step": -1}, "scaler": {}}', ('{"progress": {"step": 1, "tokens_seen": -1}, '
                                                    '"scaler": {}}'),
        '{"progress": {"step": 1}, "scaler": {"scale": NaN}}', ('{"progress": {"best_loss": '
                                                               'Infinity}, "scaler": {}}'),
    ],
)  # fmt: skip
def test_a_state_that_convo_did_not_write_is_named(tmp_path, content):
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"state\.json: cannot be read"):
        read_state(tmp_path)


def test_a_state_of_another_version_is_refused_with_both_numbers(tmp_path):
    (tmp_path / "state.json").write_text(
        '{"format": 1, "progress": {"step": 1, "scores": null}, "scaler": {}}'
    )
    with pytest.raises(
        CheckpointError, match=r"state\.json: format 1, but this version of convo reads format 2"
    ):
        read_state(tmp_path)


def test_a_missing_state_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"state\.json: No such file"):
        read_state(tmp_path)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_progress_holds_no_number_that_is_not_finite(bad):
    with pytest.raises(ValidationError):
        Progress().best_loss = bad
    with pytest.raises(ValidationError):
        Progress().best_metrics = {METRIC: bad}
