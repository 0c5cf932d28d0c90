"""`convo resume`: goes on from the checkpoint that was asked for, and says what it did."""

from __future__ import annotations

import json

from convo_cli.runs.atomic import file_sha256
from convo_cli.runs.layout import RunDirectory
from convo_cli.runs.lock import locked
from convo_cli.runs.metrics import read_metrics
from tests.commands import settings

RUN = "runs/tiny"
LONGER = settings("training.max_steps=8")


def test_a_finished_run_is_extended(work, convo):
    result = convo("resume", RUN, *LONGER)
    assert (result.code, result.out) == (0, f"{RUN}\n")
    assert "going on from step-00000006, the last checkpoint" in result.err
    assert "step 8/8" in result.err
    records = list(read_metrics(work / RUN / "metrics.jsonl"))
    steps = [record["step"] for record in records if record["event"] == "step"]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]


def test_json_names_the_command(convo):
    answer = convo("resume", RUN, "--json", "-q", *LONGER).json
    assert (answer["command"], answer["run_dir"], answer["step"]) == ("resume", RUN, 8)


def test_the_best_checkpoints_are_found_by_their_scores(work, convo):
    for load, label in (("loss", "best-loss"), ("metric", "best-metric")):
        best = json.loads((work / RUN / f"{label}.json").read_text())
        result = convo("resume", RUN, "--load", load, *LONGER)
        assert result.code == 0
        assert f"going on from {best['checkpoint'].partition('/')[2]}, the {load} checkpoint" in result.err


def test_a_score_that_no_checkpoint_has_is_an_error_and_never_another_checkpoint(convo):
    none = settings("name=new", "training.max_steps=2", "data.validation=[]")
    assert convo("train", "config.yaml", "-q", *none).code == 0
    for load in ("loss", "metric"):
        result = convo("resume", "runs/new", "--load", load, *LONGER)
        assert (result.code, result.out) == (5, "")
        assert result.err == f"error: runs/new: no checkpoint has a validation {load} yet\nhint: use --load last\n"


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning_and_the_run_ends_the_same(work, convo):
    run = RunDirectory(work / RUN)
    assert convo("resume", RUN, "-q", *LONGER) == (0, f"{RUN}\n", "")
    whole = file_sha256(run.checkpoint(8) / "model.safetensors")
    newest = run.checkpoint(8) / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\0")
    result = convo("resume", RUN, "-q", *LONGER)
    assert (result.code, result.out) == (0, f"{RUN}\n")
    assert result.err.startswith(f"warning: {RUN}/checkpoints/step-00000008/model.safetensors: damaged")
    assert file_sha256(newest) == whole


def test_a_run_directory_that_another_process_works_in_is_left_alone(work, convo):
    with locked(RunDirectory(work / RUN)):
        result = convo("resume", RUN, *LONGER)
    assert (result.code, result.out) == (5, "")
    assert result.err.startswith(f"error: {RUN}: another process is working in this run directory\nhint: wait")
    assert not RunDirectory(work / RUN).checkpoint(8).exists()
