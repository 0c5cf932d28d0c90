"""`data.test`: checked before step 1, read by no evaluation, scored when the run has finished."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from functools import partial

import pytest

from convo_cli.evaluation.evaluator import Evaluator
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.evaluations import weights_of
from convo_cli.runs.logs.event_log import read_metrics
from convo_cli.runs.provenance.run_info import read_run_info, sealed_config
from convo_cli.storage.sealed import file_sha256
from convo_cli.tokens.store_columns import FileColumn
from convo_cli.training import recorded
from tests.commands import make_workplace, run_here, settings

TEST = settings("data.test=test.jsonl")
WORSE = settings("training.learning_rate=1.0", "training.warmup_steps=3")
"""From step 3 on the loss rises, so the best checkpoint is not the last one."""


SHORT = settings("training.max_steps=1", "data.validation=[]")


def add_test_data(folder):
    """Write a test file: the last 9 dialogues of the validation data, with other first words."""
    lines = (folder / "valid.jsonl").read_text(encoding="utf-8").splitlines()[-9:]
    lines = [line.replace("[", '["Well,", ', 1) for line in lines if line.startswith("[")]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a run that was scored on its test data, and a run without any. Copy it."""
    folder = make_workplace(tmp_path_factory.mktemp("finished"))
    add_test_data(folder)
    result = run_here(folder, "train", "config.yaml", *TEST, *WORSE)
    assert result.code == 0
    (folder / "train.err").write_text(result.err, encoding="utf-8")
    assert run_here(folder, "train", "config.yaml", "-q", *SHORT, "--set", "name=plain").code == 0
    return folder


@pytest.fixture
def work(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "work")


@pytest.fixture
def convo(work):
    return partial(run_here, work)


@pytest.fixture
def run(work):
    return RunDirectory(work / "runs/tiny")


def scores_of(run):
    return json.loads(run.test.read_text(encoding="utf-8"))


def last_line(result):
    return result.err.splitlines()[-1]


def test_the_best_checkpoint_is_scored_and_not_the_last(finished, work, convo, run):
    scores = scores_of(run)
    assert (scores["checkpoint"], scores["step"]) == ("checkpoints/step-00000003", 3)
    assert scores["weights"] == weights_of(run.checkpoint(3)) != weights_of(run.checkpoint(6))
    (file,) = scores["data"]
    assert file["sha256"] == file_sha256(work / "test.jsonl")
    assert (run.path / file["path"]).samefile(work / "test.jsonl")
    evaluated = convo("evaluate", run.checkpoint(3), "test.jsonl", "--json", "-q").json
    assert scores["loss"] == pytest.approx(evaluated["scores"]["loss"], rel=1e-5)
    assert scores["num_targets"] == evaluated["counts"]["targets"]
    assert scores["metrics"].keys() == evaluated["scores"].keys() - {"loss", "perplexity"}
    assert scores["num_replies"] == 2
    assert any("come from only 2 replies" in caution for caution in scores["cautions"])
    assert scores["intervals"].keys() == evaluated["intervals"].keys() & scores["metrics"].keys()
    assert scores["floors"].keys() == evaluated["floors"].keys()
    assert scores["floor_source"] == evaluated["floor_source"] == "the run's training data"
    shown = (finished / "train.err").read_text(encoding="utf-8")
    assert f"\ntest  loss {scores['loss']:.4g}  perplexity " in shown
    assert f"(step 3, best by loss; runs/tiny/test.json)\n  {scores['floors_sentence']}\n" in shown
    assert "\nscoring the test data (" in shown


def test_a_link_to_a_checkpoint_is_scored_on_the_test_data_of_its_run(work, convo, run):
    (work / "link").symlink_to(run.checkpoint(3))
    linked = convo("evaluate", "link", "--replies", 0, "--json", "-q").json
    assert linked["scores"]["loss"] == pytest.approx(scores_of(run)["loss"], rel=1e-5)


def test_a_run_without_evaluations_is_scored_with_its_last_checkpoint(work, convo):
    result = convo("train", "config.yaml", "--json", "-q", *TEST, *SHORT, "--set", "name=x").json
    assert result["test"]["step"] == result["step"] == 1
    assert scores_of(RunDirectory(work / "runs/x"))["loss"] == result["test"]["loss"]


def test_no_step_and_no_evaluation_reads_the_test_data(work, convo, monkeypatch):
    """Its tokens are read by the pre-flight and after the last step only."""
    reads, stages = [], []
    get, score = FileColumn.__getitem__, Evaluator.__call__

    def read(column, part):
        reads.append((stages[-1] if stages else "steps", column._path.parent))
        return get(column, part)

    def evaluate(evaluator, model, step):
        stages.append(evaluator.stage)
        scores = score(evaluator, model, step)
        if evaluator.stage == "evaluating":
            stages.append("steps")
        return scores

    monkeypatch.setattr(FileColumn, "__getitem__", read)
    monkeypatch.setattr(Evaluator, "__call__", evaluate)
    started = recorded.started
    monkeypatch.setattr(recorded, "started", lambda *parts: (started(*parts), reads.clear())[0])
    convo("train", "config.yaml", "-q", *TEST, *settings("name=watched", "training.max_steps=4"))
    stores = {stage: {path for where, path in reads if where == stage} for stage in stages}
    assert set(stages) == {"evaluating", "steps", "scoring the test data"}
    (test,) = stores["scoring the test data"]
    assert test not in stores["steps"] | stores["evaluating"]


def test_with_test_data_the_run_itself_is_the_same(work, convo, run):
    assert convo("train", "config.yaml", "-q", *WORSE, *settings("name=without")).code == 0
    without = RunDirectory(work / "runs/without")
    assert file_sha256(run.checkpoint(6) / "model.safetensors") == file_sha256(
        without.checkpoint(6) / "model.safetensors"
    )
    volatile = {"time", "seconds", "waiting_seconds", "memory_bytes", "test"}
    logs = [
        [
            {key: value for key, value in record.items() if key not in volatile}
            for record in read_metrics(one.metrics)
            if record["event"] in ("run_started", "step", "evaluation", "checkpoint")
        ]
        for one in (run, without)
    ]
    assert logs[0] == logs[1]


def test_a_run_of_a_version_without_test_data_is_resumed_without_a_notice(work, convo):
    longer = settings("training.max_steps=2")
    shutil.copytree(work / "runs/plain", work / "runs/old")
    old = RunDirectory(work / "runs/old")
    content = read_run_info(old).model_dump_json(
        exclude={"checksum": True, "test": True, "config": {"data": {"test"}}}
    )
    checksum = hashlib.sha256(content.encode()).hexdigest()
    old.info.write_text(json.dumps({**json.loads(content), "checksum": checksum}))
    config = old.config.read_bytes().partition(b"VALUE\n")[2]
    old.config.write_bytes(sealed_config(config.replace(b"  test: []\n", b"")))
    for name in ("old", "plain"):
        assert convo("resume", f"runs/{name}", "-q", *longer) == (0, f"runs/{name}\n", "")
    new = RunDirectory(work / "runs/plain")
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert (old.checkpoint(2) / file).read_bytes() == (new.checkpoint(2) / file).read_bytes()


# Missing and outdated scores


def test_a_finished_run_with_scores_has_nothing_to_do(convo, run):
    before = run.test.read_bytes()
    result = convo("resume", "runs/tiny", "--json")
    assert "nothing to do: this run already finished (all 6 steps done)" in result.err
    assert result.json["test"]["loss"] == scores_of(run)["loss"]
    assert run.test.read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "a changed digit", "other weights"])
def test_a_resume_computes_missing_or_outdated_scores(convo, run, damage):
    right = scores_of(run)
    text = run.test.read_text(encoding="utf-8")
    changed = {
        "a changed digit": text.replace('"num_replies": 2', '"num_replies": 3'),
        "other weights": text.replace(right["weights"], weights_of(run.checkpoint(6))),
    }
    run.test.write_text(changed.get(damage, ""), encoding="utf-8")
    if damage == "missing":
        run.test.unlink()
    result = convo("resume", "runs/tiny")
    assert "scored its test data: this run already finished (all 6 steps done)" in result.err
    again = scores_of(run)
    assert {**again, "seconds": 0, "checksum": ""} == {**right, "seconds": 0, "checksum": ""}
    assert "nothing to do: " in convo("resume", "runs/tiny").err


def test_an_extended_run_is_scored_again_at_its_end(convo, run):
    run.test.write_text("{}", encoding="utf-8")
    better = settings("training.max_steps=9", "training.learning_rate=1e-4")
    result = convo("resume", "runs/tiny", "--load", "loss", "--discard-later", "--json", *better)
    assert result.code == 0, result.err
    assert result.json["step"] == 9
    best = json.loads(run.pointer("best-loss").read_text(encoding="utf-8"))["step"]
    assert result.json["test"]["step"] == scores_of(run)["step"] == best > 3


def test_a_stopped_run_is_not_scored(work, convo):
    longer = settings("name=long", "training.max_steps=100000", "evaluation.every_steps=2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDirectory, "is_stop_requested", property(lambda run: True))
        result = convo("train", "config.yaml", "--json", *TEST, *longer)
    assert result.code == 0, result.err
    assert result.json["test"] is None
    assert not (work / "runs/long/test.json").exists()


# Failures while scoring


def failing(monkeypatch, fail):
    """Call ``fail`` once, when the test data is scored."""
    score = Evaluator.__call__

    def evaluate(evaluator, model, step):
        if evaluator.stage == "scoring the test data":
            monkeypatch.setattr(Evaluator, "__call__", score)
            fail()
        return score(evaluator, model, step)

    monkeypatch.setattr(Evaluator, "__call__", evaluate)


def no_memory():
    raise MemoryError


def test_too_little_memory_to_score_the_test_data_loses_nothing(work, convo, monkeypatch):
    failing(monkeypatch, no_memory)
    result = convo("train", "config.yaml", *TEST, *SHORT, "--set", "name=x")
    assert result.code == 2
    run = RunDirectory(work / "runs/x")
    assert "warning: the run is finished and saved, but its test data was not scored" in result.err
    assert "finished at step 1 " in result.err
    assert [record["event"] for record in read_metrics(run.metrics)][-1] == "run_finished"
    assert not run.test.exists()
    scores = convo("resume", "runs/x", "--json").json["test"]
    assert {"format": 1, **scores, "checksum": ""} == {**scores_of(run), "checksum": ""}


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_a_signal_stops_the_scoring_at_once_and_a_resume_repeats_it(convo, run, monkeypatch):
    run.test.unlink()
    failing(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
    result = convo("resume", "runs/tiny")
    assert result.code == 143
    assert result.err.splitlines()[-2:] == [
        "stopped before the test data was scored; the run is finished and saved",
        "hint: convo resume runs/tiny scores it",
    ]
    assert not run.test.exists()
    assert convo("resume", "runs/tiny").code == 0
    assert run.test.exists()


def test_a_stop_file_stops_the_scoring_with_exit_code_0(convo, run, monkeypatch):
    run.test.unlink()
    failing(monkeypatch, run.stop.touch)
    result = convo("resume", "runs/tiny", "--json")
    assert (result.code, result.json["test"]) == (0, None)
    assert "the run is finished and saved; convo resume runs/tiny scores it" in result.err
    assert not run.stop.exists()
    assert not run.test.exists()


# Changed test data


def test_changed_test_data_is_refused_and_with_allow_changed_scored(work, convo, run):
    before = scores_of(run)
    with (work / "test.jsonl").open("ab") as file:
        file.write(b'["How are you?", "Fine."]\n')
    refused = convo("resume", "runs/tiny")
    assert refused.code == 6
    assert "test.jsonl: not the data that the run began with" in refused.err
    assert scores_of(run) == before
    allowed = convo("resume", "runs/tiny", "--allow-changed", "--json")
    assert allowed.json["test"]["data"][0]["sha256"] == file_sha256(work / "test.jsonl")
    info = json.loads(run.info.read_text(encoding="utf-8"))
    assert info["test"][0]["sha256"] == file_sha256(work / "test.jsonl")
    assert {"step": 6, "message": "data.test: other content"} in info["changes"]
    again = convo("resume", "runs/tiny")
    assert "nothing to do: " in again.err
    assert "warning: " not in again.err


def test_a_finished_run_gets_test_data_later(work, convo):
    refused = convo("resume", "runs/plain", *TEST)
    assert refused.code == 6
    assert "data.test lists 1 file, but the run began with 0" in refused.err
    assert convo("resume", "runs/plain", *TEST, "--allow-changed").code == 0
    assert scores_of(RunDirectory(work / "runs/plain"))["step"] == 1
    assert convo("evaluate", "runs/plain", "-q").code == 0
    assert "nothing to do: " in convo("resume", "runs/plain").err


# The pre-flight


def test_a_missing_file_is_reported_at_its_place(work, convo):
    config = work / "config.yaml"
    text = config.read_text(encoding="utf-8").replace(
        "  validation: valid.jsonl", "  validation: valid.jsonl\n  test: [test.jsonl, nope.jsonl]"
    )
    config.write_text(text, encoding="utf-8")
    result = convo("train", "config.yaml", *settings("name=x"))
    assert result.code == 2
    assert "error: config.yaml:6:22 data.test.1: nope.jsonl does not exist" in result.err


def test_stdin_is_refused(convo):
    result = convo("train", "config.yaml", *settings("data.test=-"))
    assert result.code == 2
    assert "--set data.test: stdin (-) can be read only once" in result.err


def test_bad_lines_are_refused_before_step_1(work, convo):
    (work / "bad.jsonl").write_text('["Hi", "Hello"]\n["Hi", ""]\n', encoding="utf-8")
    for words in (["train", "config.yaml"], ["train", "config.yaml", "--dry-run"]):
        result = convo(*words, *settings("data.test=bad.jsonl", "name=x"))
        assert result.code == 3
        assert "bad.jsonl:2:8" in result.err
    assert not (work / "runs/x").exists()


def test_a_turn_too_long_for_a_window_is_refused(work, convo):
    (work / "long.jsonl").write_text(json.dumps(["Hi", "so " * 400]) + "\n", encoding="utf-8")
    result = convo("train", "config.yaml", *settings("data.test=long.jsonl", "name=x"))
    assert result.code == 3
    assert "long.jsonl:1" in result.err
    assert "dialogue.long_turns: split" in result.err


def test_leaks_are_counted_in_a_warning_and_in_the_cautions(work, convo):
    parts = [(work / name).read_text(encoding="utf-8") for name in ("train.jsonl", "valid.jsonl")]
    train, valid = map(str.splitlines, parts)
    own = (work / "test.jsonl").read_text(encoding="utf-8").splitlines()
    leaky = [*own, *train[:2], *valid[:3]]
    (work / "leaky.jsonl").write_text("\n".join(leaky) + "\n", encoding="utf-8")
    result = convo(
        "train",
        "config.yaml",
        "--json",
        *settings("data.test=leaky.jsonl", "name=x", "training.max_steps=1"),
    )
    expected = [
        f"the training data also contains 2 of {len(leaky)} test dialogues",
        f"the validation data also contains 3 of {len(leaky)} test dialogues",
    ]
    for caution, start in zip(result.json["test"]["cautions"], expected, strict=False):
        assert caution.startswith(start)
        assert f"warning: {caution} (leaky.jsonl:" in result.err


def test_validate_data_shows_a_third_column(work, convo):
    config = work / "config.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("data:", "data:\n  test: test.jsonl"), encoding="utf-8")
    num = len((work / "test.jsonl").read_text(encoding="utf-8").splitlines())
    shown = convo("validate-data", "--config", "config.yaml").out
    assert ["training", "validation", "test"] in [line.split()[-3:] for line in shown.splitlines()]
    preflight = convo("validate-data", "--config", "config.yaml", "--json").json["preflight"]
    assert preflight["test"]["num_dialogues"] == num


def test_the_plan_names_the_test(convo):
    words = ["train", "config.yaml", "--dry-run", *TEST, "--set", "name=x"]
    assert "\ntest          once, at the end of the run, with the best checkpoint by loss\n" in (
        convo(*words).out
    )
    assert convo(*words, "--json").json["test"]["num_examples"] > 0
    assert "with the last checkpoint\n" in convo(*words, "--set", "data.validation=[]").out


# evaluate without DATA


@pytest.mark.parametrize("model", ["runs/tiny", "runs/tiny/checkpoints/step-00000003"])
def test_evaluate_without_data_scores_the_test_data_of_the_run(work, convo, model):
    result = convo("evaluate", model, "--json", "-q").json
    assert [one["sha256"] for one in result["data"]] == [file_sha256(work / "test.jsonl")]
    assert "changed since the run began" not in str(result["cautions"])
    with (work / "test.jsonl").open("ab") as file:
        file.write(b'["How are you?", "Fine."]\n')
    cautions = convo("evaluate", model, "--json", "-q").json["cautions"]
    assert cautions[0].endswith(
        "test.jsonl changed since the run began (its SHA-256 is not the one in run.json)"
    )


def test_evaluate_without_data_needs_a_run_with_test_data(work, convo):
    assert convo("export", "runs/plain", "out", "-q").code == 0
    for model, reason in (("runs/plain", "its run has no"), ("out", "not a run with")):
        result = convo("evaluate", model)
        assert result.code == 2
        assert result.err == (
            f"error: {model}: {reason} data.test, so evaluate needs the data to score\n"
            f"hint: convo evaluate {model} test.jsonl\n"
        )
