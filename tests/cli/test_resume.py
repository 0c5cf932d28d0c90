"""`convo resume`: continues from the requested checkpoint and reports what it did."""

from __future__ import annotations

import json
import math
import re
import shutil

import pytest

from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.lock import locked
from convo_cli.runs.logs.event_log import read_metrics
from convo_cli.storage.sealed import file_sha256
from tests.commands import environment, run_here, run_process, settings, snapshot

RUN = "runs/tiny"
LONGER = settings("training.max_steps=8")


def test_a_finished_run_is_extended(work, convo):
    result = convo("resume", RUN, *LONGER)
    assert (result.code, result.out) == (0, f"{RUN}\n")
    assert "resuming from step 6 (last checkpoint)" in result.err
    assert "step 8/8" in result.err
    records = list(read_metrics(work / RUN / "metrics.jsonl"))
    steps = [record["step"] for record in records if record["event"] == "step"]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]


def test_an_extended_run_keeps_its_learning_rate_until_a_longer_schedule_is_stated(work, convo):
    def rates():
        records = read_metrics(work / RUN / "metrics.jsonl")
        return [record["learning_rate"] for record in records if record["event"] == "step"]

    result = convo("resume", RUN, *LONGER)
    assert (
        "the run is extended from 6 to 8 steps; from step 7 on the learning rate is 0.0001"
        in result.err
    )
    assert (
        "--set training.schedule_steps=8 stretches the schedule: step 7 then has 0.00019"
        in result.err
    )
    assert rates()[5:] == pytest.approx([1e-4] * 3)
    result = convo(
        "resume", RUN, *settings("training.max_steps=12", "training.schedule_steps=null")
    )
    assert re.search(
        r"^the learning rate of step 9 changes from 0\.0001 to 0\.0003\d*$",
        result.err,
        re.MULTILINE,
    )
    assert (rates()[8], rates()[-1]) == pytest.approx((3.25e-4, 1e-4))


def test_json_names_the_command(convo):
    answer = convo("resume", RUN, "--json", "-q", *LONGER).json
    assert (answer["command"], answer["run_dir"], answer["step"]) == ("resume", RUN, 8)


def test_the_best_checkpoint_is_continued_in_place_or_in_a_new_run(work, convo):
    best = json.loads((work / RUN / "best-loss.json").read_text())["step"]
    assert convo("resume", RUN, "-q", *LONGER, *settings("training.learning_rate=1")).code == 0
    assert json.loads((work / RUN / "best-loss.json").read_text())["step"] == best, (
        "what came after is worse"
    )
    before = snapshot(work / RUN)
    result = convo("resume", RUN, "--load", "loss", *LONGER)
    fork = f"{RUN}-from-{best}"
    assert (result.code, result.out) == (0, f"{fork}\n")
    assert (
        f"resuming from step {best} (best checkpoint by loss) in a new run, {fork}; {RUN} stays as "
        "it is" in result.err
    )
    assert f"convo chat {fork}\n" in result.err
    assert {path: state for path, state in snapshot(work / RUN).items() if path != ".lock"} == {
        path: state for path, state in before.items() if path != ".lock"
    }
    again = convo("resume", RUN, "--load", "loss", *LONGER)
    assert (again.code, again.out) == (5, "")
    assert again.err.splitlines()[-2:] == [
        f"error: {fork}: already exists",
        f"hint: `convo resume {fork}` continues it; --set name=… starts another run",
    ]
    named = convo("resume", RUN, "--load", "loss", *LONGER, *settings("name=other"))
    assert (named.code, named.out) == (0, "runs/other\n")

    result = convo("resume", RUN, "--load", "loss", "--discard-later", *LONGER)
    assert (result.code, result.out) == (0, f"{RUN}\n")
    assert f"warning: discarded after step {best}: step-00000008 and their log lines" in result.err
    assert f"resuming from step {best} (best checkpoint by loss)\n" in result.err
    ends = [
        file_sha256(work / run / "checkpoints/step-00000008/model.safetensors")
        for run in (RUN, fork, "runs/other")
    ]
    assert len(set(ends)) == 1


def test_the_best_checkpoint_that_is_the_newest_continues_in_place(work, convo):
    assert json.loads((work / RUN / "best-loss.json").read_text())["step"] == 6
    result = convo("resume", RUN, "--load", "loss", *LONGER)
    assert (result.code, result.out) == (0, f"{RUN}\n")
    assert "resuming from step 6 (best checkpoint by loss)\n" in result.err
    assert [path.name for path in (work / "runs").iterdir() if not path.name.startswith(".")] == [
        "tiny"
    ]


def test_a_run_that_is_given_as_the_current_folder_forks_beside_it(work, monkeypatch):
    result = run_here(work / RUN, "resume", ".", "-q", *LONGER, *settings("name=other"))
    assert result.code == 0
    assert (work / "runs/other/run.json").is_file()


def test_a_fork_lies_beside_the_run_that_a_link_names_and_is_named_after_its_directory(work, convo):
    assert convo("resume", RUN, "-q", *LONGER, *settings("training.learning_rate=1")).code == 0
    (work / RUN).rename(work / "runs/renamed")
    (work / "link").symlink_to("runs/renamed")
    result = convo("resume", "link", "--load", "loss", "-q", *LONGER)
    assert (result.code, result.out.strip()) == (0, str(work / "runs/renamed-from-6"))


def test_a_diverged_fork_is_resumed_by_its_own_name(work, convo, monkeypatch):
    from convo_cli.model.batches.batching import Batching

    nll = Batching.nll

    def diverging(self, model, batch):
        total, each = nll(self, model, batch)
        return total * (math.nan if model.training else 1), each

    monkeypatch.setattr(Batching, "nll", diverging)
    result = convo("resume", RUN, "-q", *LONGER, *settings("name=other", "training.packing=off"))
    assert result.code == 4
    assert "convo resume runs/other --set training.learning_rate=" in result.err


def test_a_score_that_no_checkpoint_has_is_an_error_and_never_another_checkpoint(convo):
    none = settings("name=new", "training.max_steps=2", "data.validation=[]")
    assert convo("train", "config.yaml", "-q", *none).code == 0
    for load in ("loss", "metric"):
        result = convo("resume", "runs/new", "--load", load, "-q", *LONGER)
        assert (result.code, result.out) == (5, "")
        assert (
            result.err
            == f"error: runs/new: no checkpoint has a validation {load}\nhint: use --load "
            "last\n"
        )


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning_and_the_run_ends_the_same(
    work, convo
):
    run = RunDirectory(work / RUN)
    assert convo("resume", RUN, "-q", *LONGER) == (0, f"{RUN}\n", "")
    whole = file_sha256(run.checkpoint(8) / "model.safetensors")
    newest = run.checkpoint(8) / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\0")
    result = convo("resume", RUN, "-q", *LONGER)
    assert (result.code, result.out) == (0, f"{RUN}\n")
    assert result.err.startswith(
        f"warning: {RUN}/checkpoints/step-00000008/model.safetensors: damaged"
    )
    assert file_sha256(newest) == whole


def test_a_run_directory_that_another_process_works_in_is_left_alone(work, convo):
    with locked(RunDirectory(work / RUN)):
        result = convo("resume", RUN, *LONGER)
    assert (result.code, result.out) == (5, "")
    assert re.match(
        rf"(.*\n)*error: {RUN}: process \d+ on \S+ is using this run directory\nhint: wait",
        result.err,
    )
    assert not RunDirectory(work / RUN).checkpoint(8).exists()


def test_a_run_that_is_over_says_so(convo):
    result = convo("resume", RUN)
    assert (result.code, result.out) == (0, f"{RUN}\n")
    assert "nothing to do: this run already finished (all 6 steps done)" in result.err.splitlines()
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
    assert (
        "2 steps from step-00000006: without a break, and with a save and a resume after 1 of them"
        in result.out
    )
    assert {path: state for path, state in snapshot(work / RUN).items() if path != ".lock"} == {
        path: state for path, state in before.items() if path != ".lock"
    }


def test_without_a_number_of_steps_the_runs_own_files_are_the_other_way(convo):
    result = convo("resume", RUN, "--verify", "-q")
    assert (result.code, result.err) == (0, "")
    assert (
        "3 steps from step-00000003: taken again with a save and a resume after 1 of them"
        in result.out
    )
    assert "compared with step-00000006" in result.out
    assert (
        "because the run has a checkpoint before step-00000006, and nothing changed between them"
        in result.out
    )


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
    assert result.err.startswith(f"error: {RUN}: the resumed run differs: exp_avg of ")
    assert "equal" in result.out
    as_json = convo("resume", RUN, "--verify", "--steps", "2", "-q", "--json")
    assert (as_json.code, as_json.json["error"]["exit_code"]) == (5, 5)


def test_options_that_do_not_go_together_are_refused(convo):
    for arguments in (
        ("--steps", "3"),
        ("--verify", "--load", "loss"),
        ("--verify", "--discard-later"),
        ("--verify", "--set", "name=other"),
        ("--discard-later",),
        ("--load", "loss", "--discard-later", "--set", "name=other"),
    ):
        result = convo("resume", RUN, *arguments)
        assert (result.code, result.out) == (2, "")
        assert "--verify" in result.err or "--discard-later" in result.err


def test_a_whole_checkpoint_of_another_run_is_refused(work, convo):
    file = work / RUN / "run.json"
    info = json.loads(file.read_text())
    file.write_text(json.dumps({**info, "run_id": "another"}))
    result = convo("resume", RUN, *LONGER)
    assert (result.code, result.out) == (5, "")
    assert "step-00000006: a checkpoint of another run" in result.err
    assert "Traceback" not in result.err


# What decides the bits


@pytest.mark.slow
def test_another_number_of_threads_is_used_only_where_the_user_sets_it(work):
    """With the real executable, because torch takes the number from the environment."""
    plain = {
        key: value
        for key, value in environment().items()
        if key not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    }
    one, two = ({**plain, "OMP_NUM_THREADS": number} for number in "12")
    light = settings(
        "data.validation=[]",
        "logging.tensorboard=false",
        "logging.plots=false",
        "checkpoints.every_steps=3",
    )
    assert run_process(work, "train", "config.yaml", "--set", "name=one", *light, env=one).code == 0
    info = json.loads((work / "runs/one/run.json").read_text())
    assert (info["execution"]["num_threads"], info["changes"]) == (1, [])
    errors = {}
    for name, env in (("unset", plain), ("two", two)):
        shutil.copytree(work / "runs/one", work / "runs" / name)
        shutil.rmtree(work / "runs" / name / "checkpoints/step-00000006")
        result = run_process(work, "resume", f"runs/{name}", env=env)
        assert result.code == 0
        errors[name] = result.err
    message = "CPU threads: the run had 1 and continues with 2"
    assert (
        f"warning: {message}, so numbers may differ in the last digits from step 4 on"
        in errors["two"]
    )
    info = json.loads((work / "runs/two/run.json").read_text())
    assert (info["execution"]["num_threads"], info["changes"]) == (
        2,
        [{"step": 3, "message": message}],
    )
    records = list(read_metrics(work / "runs/two/metrics.jsonl"))
    assert [record["num_threads"] for record in records if record["event"] == "run_started"] == [
        1,
        2,
    ]
    assert "warning" not in errors["unset"]
    same, straight = (
        work / f"runs/{name}/checkpoints/step-00000006/model.safetensors"
        for name in ("unset", "one")
    )
    assert file_sha256(same) == file_sha256(straight)


def test_the_stored_batching_is_used_by_evaluate_too(work, convo):
    file = work / RUN / "run.json"
    info = json.loads(file.read_text())
    for model in (RUN, f"{RUN}/checkpoints/step-00000006"):
        result = convo("evaluate", model, "valid.jsonl", "--replies", 0)
        assert "batching" not in result.err
    file.write_text(json.dumps({**info, "execution": {**info["execution"], "device": "cuda:0"}}))
    result = convo("evaluate", RUN, "valid.jsonl", "--replies", 0)
    reason = "the run used cuda:0, and the model is now on cpu"
    assert f"batching: chosen again, because {reason}" in result.err
    proved = "(checked: same loss as one dialogue at a time)"
    assert proved in result.err
    file.write_text(json.dumps({**info, "run_id": "another"}))
    assert proved in convo("evaluate", RUN, "valid.jsonl", "--replies", 0).err
    assert proved in convo("evaluate", "exports/tiny", "valid.jsonl", "--replies", 0).err
