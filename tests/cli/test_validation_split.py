"""`data.validation_split` through the commands."""

from __future__ import annotations

import json
from functools import partial

import pytest

from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.event_log import read_metrics
from tests.commands import make_workplace, run_here, run_process, settings

SPLIT = settings("data.validation=[]", "data.validation_split=0.2")
SHORT = settings("training.max_steps=2", "evaluation.every_steps=1")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a finished run that holds back a fifth of its dialogues."""
    folder = make_workplace(tmp_path_factory.mktemp("split"))
    test = ["How was the film?", "Too long, but the music was lovely."]
    (folder / "test.jsonl").write_text(json.dumps(test) + "\n")
    result = run_here(folder, "train", "config.yaml", *SPLIT, *SHORT)
    assert result.code == 0, result.err
    (folder / "train.err").write_text(result.err, encoding="utf-8")
    return folder


@pytest.fixture
def convo(work):
    return partial(run_here, work)


def started(work):
    return next(read_metrics(RunDirectory(work / "runs/tiny").metrics))


def test_the_run_shows_the_true_share_and_is_evaluated_on_it(work):
    record, err = started(work), (work / "train.err").read_text(encoding="utf-8")
    train, validation = record["training"], record["validation"]
    num_held_back, num = validation["num_dialogues"], 25
    assert train["num_held_back"] == num_held_back > 0 == validation["num_held_back"]
    assert train["num_dialogues"] + num_held_back == num
    share = f"{100 * num_held_back / num:.3g}"
    assert (
        f"held back {num_held_back} of {num} dialogues for validation ({share} %; "
        "data.validation_split: 0.2)" in err
    )
    assert f"{num_held_back} ({share}%)" in err  # the table
    assert "also contains" not in err  # no leak
    evaluations = [
        one
        for one in read_metrics(RunDirectory(work / "runs/tiny").metrics)
        if one["event"] == "evaluation"
    ]
    assert [one["step"] for one in evaluations] == [1, 2]
    assert {one["num_targets"] for one in evaluations} == {
        validation["num_targets_by_role"]["assistant"]
    }


def test_a_resume_is_exact_and_encodes_nothing(work, convo):
    result = convo("resume", "runs/tiny", "--verify", "--json")
    assert (result.code, result.json["is_equal"]) == (0, True)
    assert "the training data was encoded earlier" in result.err
    assert "the validation data was encoded earlier" in result.err


@pytest.mark.parametrize("value", ["0.3", "null"])
def test_another_split_is_refused_at_a_resume(convo, value):
    result = convo("resume", "runs/tiny", *settings(f"data.validation_split={value}"))
    assert result.code == 6
    assert f"data.validation_split is {value}, but the run was started with 0.2" in result.err


def test_a_split_that_was_edited_in_the_run_is_noticed(work, convo):
    config = work / "runs/tiny/config.yaml"
    before = config.read_text(encoding="utf-8")
    config.write_text(before.replace("validation_split: 0.2", "validation_split: 0.4"))
    try:
        result = convo("resume", "runs/tiny")
    finally:
        config.write_text(before, encoding="utf-8")
    assert result.code == 6
    assert "data.validation_split" in result.err


def test_a_run_is_evaluated_on_a_whole_file(convo):
    result = convo("evaluate", "runs/tiny", "test.jsonl", "--replies", "0", "--json")
    assert (result.code, result.err.count("held back")) == (0, 0)


def test_validate_data_shows_the_share_of_the_config_and_checks_a_file_whole(work, convo):
    (work / "split.yaml").write_text(
        (work / "config.yaml")
        .read_text(encoding="utf-8")
        .replace("validation: valid.jsonl", "validation_split: 0.2"),
        encoding="utf-8",
    )
    record = convo("validate-data", "--config", "split.yaml", "--json").json["preflight"]
    assert record["training"] == started(work)["training"]
    assert record["validation"] == started(work)["validation"]
    whole = convo("validate-data", "test.jsonl", "--config", "split.yaml", "--json")
    assert whole.code == 0
    assert whole.json["preflight"]["validation"] is None


def test_a_file_and_a_split_exclude_each_other(work):
    result = run_process(work, "train", "config.yaml", *settings("data.validation_split=0.1"))
    assert result.code == 2
    assert "set only one of data.validation_split and data.validation" in result.err


def test_data_with_one_opening_is_refused(work, convo):
    same = json.dumps(["Hello", "Hi", "How are you?", "Fine."])
    (work / "same.jsonl").write_text(f"{same}\n{same.upper()}\n")
    result = convo("train", "config.yaml", *SPLIT, *settings("data.train=same.jsonl", "name=same"))
    assert result.code == 3
    assert "all 2 dialogues begin with the same two turns" in result.err
    assert not (work / "runs/same").exists()


def test_many_dialogues_with_one_opening_are_warned_about(work, convo):
    lines = (work / "train.jsonl").read_text(encoding="utf-8").splitlines()[:10]
    same = [json.dumps(["Hello", "Hi", f"I need {k} tickets.", "Sure."]) for k in range(200)]
    (work / "many.jsonl").write_text("\n".join([*lines, *same]) + "\n", encoding="utf-8")
    options = settings("data.train=many.jsonl", "name=many", "evaluation.reply_dialogues=0")
    result = convo("train", "config.yaml", "--dry-run", *SPLIT, *options)
    assert result.code == 0
    assert "because many dialogues begin with the same two turns" in result.err


def test_a_config_for_one_file_splits_it_if_it_can_be_split(work, convo):
    written = convo("init-config", "--train", "train.jsonl", "--json")
    assert written.json["config"]["data"]["validation_split"] == 0.05
    assert "dialogues (and 1 held back for validation) in train.jsonl" in written.err
    other = convo("init-config", "--train", "train.jsonl", "--validation", "valid.jsonl", "--json")
    assert other.json["config"]["data"]["validation_split"] is None
    single = convo("init-config", "--train", "test.jsonl", "--json")
    assert single.json["config"]["data"]["validation_split"] is None
