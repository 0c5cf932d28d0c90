"""`convo resume`: goes on from the checkpoint that was asked for, and says what it did."""

from __future__ import annotations

import json
import re

from convo_cli.runs.atomic import file_sha256
from convo_cli.runs.layout import RunDirectory
from convo_cli.runs.lock import locked
from convo_cli.runs.metrics import read_metrics
from tests.commands import settings, snapshot

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
    for load, label, end in (("loss", "best-loss", 8), ("metric", "best-metric", 10)):
        best = json.loads((work / RUN / f"{label}.json").read_text())
        result = convo("resume", RUN, "--load", load, *settings(f"training.max_steps={end}"))
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
    assert re.match(rf"error: {RUN}: process \d+ on \S+ is working in this run directory\nhint: wait", result.err)
    assert not RunDirectory(work / RUN).checkpoint(8).exists()


def test_a_run_that_is_over_says_so(convo):
    result = convo("resume", RUN)
    assert (result.code, result.out) == (0, f"{RUN}\n")
    assert "the run is over, so nothing is done: all 6 steps done" in result.err.splitlines()
    assert "steps" not in [line.split()[0] for line in result.err.splitlines()]


def test_data_in_another_order_is_refused_until_it_is_allowed(work, convo):
    lines = (work / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (work / "train.jsonl").write_text("".join(reversed(lines)), encoding="utf-8")
    result = convo("resume", RUN, *LONGER)
    assert (result.code, result.out) == (6, "")
    assert "train.jsonl: not the data that the run began with" in result.err
    assert "--allow-changed" in result.err
    assert convo("resume", RUN, "-q", "--allow-changed", *LONGER).code == 0


# --verify


def test_the_proof_of_a_resume_is_a_table_on_stdout_and_leaves_the_run_alone(work, convo):
    before = snapshot(work / RUN)
    result = convo("resume", RUN, "--verify", "--steps", "2", "-q")
    assert (result.code, result.err) == (0, "")
    for what in ("examples of a step", "logged values", "optimizer tensors", "weight tensors"):
        assert any(what in line and "equal" in line for line in result.out.splitlines())
    assert "2 steps from step-00000006: straight, and with a save and a resume after 1 of them" in result.out
    assert {path: state for path, state in snapshot(work / RUN).items() if path != ".lock"} == {
        path: state for path, state in before.items() if path != ".lock"
    }


def test_the_proof_as_json(convo):
    answer = convo("resume", RUN, "--verify", "--steps", "2", "-q", "--json").json
    assert (answer["command"], answer["is_equal"], answer["num_steps"]) == ("resume", True, 2)
    assert [check["difference"] for check in answer["checks"]] == [None] * 4


def test_a_resume_that_changes_something_fails_with_the_first_difference(convo, monkeypatch):
    from convo_cli.training import build

    restore = build.restore_state

    def forgetful(path, state):
        restore(path, state)
        if "convo-verify" in str(path):
            state.optimizer.state.clear()

    monkeypatch.setattr(build, "restore_state", forgetful)
    result = convo("resume", RUN, "--verify", "--steps", "2", "-q")
    assert result.code == 5
    assert result.err.startswith(f"error: {RUN}: resuming does not give the same run here: exp_avg of ")
    assert "equal" in result.out
    as_json = convo("resume", RUN, "--verify", "--steps", "2", "-q", "--json")
    assert (as_json.code, as_json.json["error"]["exit_code"]) == (5, 5)


def test_options_that_do_not_go_together_are_refused(convo):
    for arguments in (("--steps", "3"), ("--verify", "--load", "loss")):
        result = convo("resume", RUN, *arguments)
        assert (result.code, result.out) == (2, "")
        assert "--verify" in result.err


def test_a_whole_checkpoint_of_another_run_is_refused(work, convo):
    file = work / RUN / "run.json"
    info = json.loads(file.read_text())
    file.write_text(json.dumps({**info, "run_id": "another"}))
    result = convo("resume", RUN, *LONGER)
    assert (result.code, result.out) == (5, "")
    assert "step-00000006: a checkpoint of another run" in result.err
    assert "Traceback" not in result.err
