"""`convo evaluate`: the same scores as training reported, as a table or as one object."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat

import pytest

from convo_cli.metrics.metric_table import METRICS
from convo_cli.runs.logs.event_log import read_metrics
from tests.commands import settings

MODEL = "exports/tiny"


def test_a_model_scores_as_it_did_at_the_end_of_its_training(work, convo):
    last = [
        record
        for record in read_metrics(work / "runs/tiny/metrics.jsonl")
        if record["event"] == "evaluation"
    ][-1]
    for model in (MODEL, "runs/tiny", "runs/tiny/checkpoints/step-00000006"):
        answer = convo("evaluate", model, "valid.jsonl", "--replies", 0, "--json", "-q").json
        assert answer["scores"]["loss"] == pytest.approx(last["loss"], rel=1e-5)
        assert answer["scores"]["perplexity"] == pytest.approx(last["perplexity"], rel=1e-5)
        assert answer["counts"]["targets"] == last["num_targets"]
        assert answer["source"] == (
            MODEL if model == MODEL else "runs/tiny/checkpoints/step-00000006"
        )


def test_json_has_every_score_and_what_it_was_counted_over(work, convo):
    result = convo("evaluate", MODEL, "valid.jsonl", "train.jsonl", "--replies", 3, "--json")
    answer = result.json
    assert (answer["command"], answer["model"], answer["source"]) == ("evaluate", MODEL, MODEL)
    assert answer["data"] == [
        {"path": name, "sha256": hashlib.sha256((work / name).read_bytes()).hexdigest()}
        for name in ("valid.jsonl", "train.jsonl")
    ]
    assert {"loss", "perplexity", *METRICS} <= set(answer["scores"])
    assert answer["counts"]["replies"] == 3


def test_the_table_goes_to_stdout_and_quiet_leaves_nothing_else(convo):
    result = convo("evaluate", MODEL, "valid.jsonl", "--replies", 1, "-q")
    assert (result.code, result.err) == (0, "")
    for name in ("loss", "perplexity", "bleu-4", "targets", "replies"):
        assert name in result.out
    cautions = [line for line in result.out.splitlines() if line.startswith("caution: ")]
    assert max(map(len, set(result.out.splitlines()).difference(cautions))) <= 80


def test_the_table_names_the_model_its_step_and_the_data_apart_from_scores_and_counts(convo):
    out = convo("evaluate", "runs/tiny", "valid.jsonl", "train.jsonl", "--replies", 1, "-q").out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:3] == [
        "model runs/tiny, step 6 (last checkpoint, best by loss)",
        "data valid.jsonl",
        "train.jsonl",
    ]
    (counts,) = [line for line in lines if line.startswith("counted on")]
    assert counts.endswith(" targets · 1 reply")
    assert not any("targets" in line for line in lines if "│" in line)


def test_other_references_raise_the_scores_of_replies_and_change_no_loss(work, convo):
    answer: dict[str, object] = {"role": "assistant", "content": "zyx"}
    turns = [{"role": "user", "content": "Hi"}, answer]
    (work / "one.jsonl").write_text(json.dumps(turns) + "\n" + json.dumps(turns) + "\n")
    arguments = ("--replies", 2, "-q")
    one = convo("evaluate", MODEL, "one.jsonl", *arguments, "--json").json
    assert one["counts"]["replies with several references"] == 0
    said = "".join(chr(code) for code in range(33, 127))
    answer["references"] = [said, " ".join(said)]
    (work / "more.jsonl").write_text(json.dumps(turns) + "\n" + json.dumps(turns) + "\n")
    more = convo("evaluate", MODEL, "more.jsonl", *arguments, "--json").json
    assert more["counts"]["replies with several references"] == 2
    assert more["scores"]["loss"] == one["scores"]["loss"]
    assert more["scores"]["chrf"] > one["scores"]["chrf"]
    shown = convo("evaluate", MODEL, "more.jsonl", *arguments).out
    assert " · 2 replies · 2 replies with several references\n" in shown


def test_few_replies_and_the_training_file_are_cautions(work, convo):
    shutil.copyfile(work / "train.jsonl", work / "renamed.jsonl")
    for model in ("runs/tiny", "runs/tiny/checkpoints/step-00000003"):
        result = convo("evaluate", model, "renamed.jsonl", "--replies", 2, "-q")
        assert "caution: renamed.jsonl is training data of this model (same SHA-256)" in result.out
        assert "come from only 2 replies" in result.out
    answer = convo("evaluate", "runs/tiny", "valid.jsonl", "--replies", 0, "--json", "-q").json
    assert (answer["step"], answer["cautions"]) == (6, [])


def test_a_reply_length_that_does_not_fit_is_said_to_be_shortened(convo):
    result = convo("evaluate", MODEL, "valid.jsonl", "--replies", 1, "--max-new-tokens", 65)
    assert result.code == 0
    assert "replies are limited to 64 tokens, half of the model's window" in result.err


# The leak and the floors


def test_the_share_of_dialogues_that_were_trained_on_is_named(work, convo):
    (work / "mixed.jsonl").write_text(
        (work / "valid.jsonl").read_text() + (work / "train.jsonl").read_text().replace(" ", "  ")
    )
    num = len((work / "train.jsonl").read_text().splitlines())
    num_valid = len((work / "valid.jsonl").read_text().splitlines())
    result = convo("evaluate", "runs/tiny", "mixed.jsonl", "--replies", 0, "-q")
    assert f"\ntrained on {num} of the {num + num_valid} dialogues\n" in result.out
    answer = convo("evaluate", "runs/tiny", "valid.jsonl", "--replies", 0, "--json", "-q").json
    assert answer["leak"] == {"num_dialogues": num_valid, "num_trained_on": 0, "reason": ""}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "its run has no training-dialogues.hashes"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "training-dialogues.hashes: dam"),
    ],
)
def test_the_leak_is_unknown_without_whole_hashes(work, convo, spoil, reason):
    spoil(work / "runs/tiny/training-dialogues.hashes")
    out = convo("evaluate", "runs/tiny", "valid.jsonl", "--replies", 0, "-q").out
    assert "trained on these dialogues: unknown (" in out
    assert reason in out


def test_an_export_does_not_reveal_what_it_was_trained_on(work, convo):
    out = convo("evaluate", MODEL, "valid.jsonl", "--replies", 0, "-q").out
    assert "trained on these dialogues: unknown (the model is not in a run directory)\n" in out
    held = {path.name for folder in (MODEL, "runs/tiny/checkpoints") for path in
            (work / folder).rglob("*")}  # fmt: skip
    assert "training-dialogues.hashes" not in held


def test_floors_come_from_the_training_data_of_the_run_while_it_is_unchanged(work, convo):
    arguments = ("evaluate", "runs/tiny", "valid.jsonl", "--replies", 5, "--json", "-q")
    answer = convo(*arguments).json
    assert answer["floor_source"] == "the run's training data"
    assert "the run's training data" in answer["floors_sentence"]
    assert set(answer["floors"]) == {"constant", "echo", "random"}
    with (work / "train.jsonl").open("a") as file:
        file.write('["Hi", "Hello"]\n')
    for spoil in (lambda: None, (work / "train.jsonl").unlink):
        spoil()
        assert convo(*arguments).json["floor_source"].startswith("the evaluated data")


# Several models


@pytest.fixture
def other(work, convo):
    """A run with another tokenizer."""
    words = settings("name=other", "tokenizer.vocab_size=500", "training.max_steps=1")
    assert convo("train", "config.yaml", "-q", *words).code == 0
    return "runs/other"


def test_models_are_scored_side_by_side_and_their_differences_have_intervals(convo):
    models = ("runs/tiny/checkpoints/step-00000003", "runs/tiny", MODEL)
    result = convo("evaluate", *models, "valid.jsonl", "--replies", 4, "--json", "-q").json
    assert [one["model"] for one in result["models"]] == list(models)
    for one in result["models"][:2]:
        alone = convo("evaluate", one["model"], "valid.jsonl", "--replies", 4, "--json", "-q").json
        assert one["scores"] == pytest.approx(alone["scores"])
        assert one["intervals"].keys() == alone["intervals"].keys() >= {"loss", "bleu-4"}
    second, third = result["differences"]
    assert (second["model"], second["minus"]) == (models[1], models[0])
    low, high = second["scores"]["loss"]["interval"]
    assert low <= second["scores"]["loss"]["value"] <= high < 0
    for name, one in third["scores"].items():
        assert one["value"] == pytest.approx(second["scores"][name]["value"]), name


def test_three_models_fit_on_80_columns(convo):
    models = ("runs/tiny/checkpoints/step-00000003", "runs/tiny", MODEL)
    out = convo("evaluate", *models, "valid.jsonl", "--replies", 4, "-q").out
    lines = out.splitlines()
    assert lines[0].startswith(f"A           {models[0]}, step 3")
    assert lines[2] == f"C           {MODEL}"
    rows = [line for line in lines if line[:1] in "┏┃┡│└"]
    assert max(map(len, rows)) <= 80
    assert [line for line in rows if line.startswith("│  ")] == [], "no cell is wrapped"
    assert "no clear difference between C and A" in out or "C minus A with 95 % intervals" in out


def test_models_with_other_tokenizers_are_compared_per_byte_only(convo, other):
    words = ("evaluate", "runs/tiny", other, "valid.jsonl", "--replies", 0, "-q")
    out = convo(*words).out
    assert "the models have different tokens" in out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("│")] == [
        "bits",
        "word",
    ]
    (difference,) = convo(*words, "--json").json["differences"]
    assert set(difference["scores"]) == {"bits-per-byte", "word-perplexity"}


def test_a_model_that_fails_does_not_keep_the_others_from_their_scores(work, convo):
    shutil.copytree(work / MODEL, work / "broken")
    weights = work / "broken/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    result = convo("evaluate", "broken", "runs/tiny", "valid.jsonl", "--replies", 0, "--json")
    assert result.code == 5
    failed, scored = result.json["models"]
    assert (failed["model"], failed["exit_code"]) == ("broken", 5)
    assert "model.safetensors" in failed["error"]
    assert scored["scores"]["loss"] > 0
    assert result.json["differences"] == []
    assert "warning: broken: not scored: " in result.err
    out = convo("evaluate", "broken", "runs/tiny", "valid.jsonl", "--replies", 0).out
    assert out.startswith("A           broken, not scored\nB           runs/tiny, step 6")


def test_load_is_for_the_runs_among_several_models(convo):
    words = ("runs/tiny", MODEL, "valid.jsonl", "--load", "last", "--replies", 0, "--json", "-q")
    run, export = convo("evaluate", *words).json["models"]
    assert (run["step"], export["step"]) == (6, None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("valid.jsonl", MODEL), f"valid.jsonl: a data file before the model {MODEL}"),
        ((MODEL, "valid.jsonl", "runs/tiny"), "runs/tiny: a model after a data file"),
        ((MODEL, "runs/tiny", f"{MODEL}/", "valid.jsonl"), f"{MODEL}/: given twice"),
        ((MODEL, "valid.jsonl", "./valid.jsonl"), "./valid.jsonl: given twice"),
        ((MODEL, "runs/tiny"), "several models need the data to score"),
        ((MODEL, "./nope", "valid.jsonl"), "./nope does not exist"),
        ((MODEL, "runs/nope"), "runs/nope does not exist"),
        ((MODEL, "nope.jsonl", "valid.jsonl"), "nope.jsonl does not exist"),
        (("valid.jsonl",), "valid.jsonl: a data file, not a model"),
        ((MODEL, "valid.jsonl", "--replies", "many"), "give a whole number, such as 100, or all"),
        ((MODEL, "valid.jsonl", "--replies", "-1"), "-1 is not at least 0"),
    ],
)
def test_models_come_first_and_every_mistake_is_named(convo, words, message):
    result = convo("evaluate", *words)
    assert result.code == 2
    assert message in result.err


def test_runs_that_read_data_in_different_ways_are_not_compared(convo):
    fork = settings("name=turned", "training.max_steps=7", "data.first_speaker=assistant")
    assert convo("resume", "runs/tiny", "-q", "--allow-changed", *fork).code == 0
    words = ("evaluate", "runs/tiny", "runs/turned", "valid.jsonl", "--replies", 0, "-q")
    result = convo(*words)
    assert result.code == 2
    assert "read data in different ways (data.first_speaker)" in result.err
    assert convo(*words, "--set", "data.first_speaker=user").code == 0


def test_all_replies_are_those_to_every_assistant_turn(work, convo):
    (work / "few.jsonl").write_text('["a", "b", "c", "d"]\n["e", "f", "g"]\n')
    words = ("evaluate", MODEL, "few.jsonl", "--json", "-q", "--replies")
    assert [convo(*words, number).json["counts"]["replies"] for number in (2, "all")] == [2, 3]


def test_the_replies_of_all_models_can_be_read_beside_the_real_ones(work, convo):
    (work / "valid.jsonl").chmod(0o600)
    models = MODEL, "runs/tiny"
    given = [*models, "valid.jsonl", "--replies", 3, "--samples", "replies.jsonl"]
    answer = convo("evaluate", *given, "--json", "-q").json
    turns = [json.loads(line) for line in (work / "replies.jsonl").read_text().splitlines()]
    assert [turn["index"] for turn in turns] == list(
        range(answer["models"][0]["counts"]["replies"])
    )
    data = (work / "valid.jsonl").read_text()
    for turn in turns:
        assert json.dumps(turn["reference"], ensure_ascii=False)[1:-1] in data
        assert turn["history"][-1]["role"] == "user"
        assert tuple(one["model"] for one in turn["replies"]) == models
        assert len({one["reply"] for one in turn["replies"]}) == 1, "an export has its weights"
    stopped = [one["stopped"] for turn in turns for one in turn["replies"]]
    assert sum(stopped) / len(stopped) == pytest.approx(answer["models"][0]["scores"]["stop-rate"])
    assert stat.S_IMODE((work / "replies.jsonl").stat().st_mode) == 0o600, "as private as the data"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", "valid.jsonl"], "--samples valid.jsonl: this is an input file"),
        (["--samples", "train.jsonl"], "train.jsonl: already exists"),
        (["--samples", "-"], "--samples -: the result is a file, not stdout"),
        (
            ["--samples", "runs/tiny/checkpoints/step-00000006/new.jsonl"],
            "new.jsonl: inside a checkpoint",
        ),
        (
            ["--samples", "new.jsonl", "--replies", 0],
            "--samples writes replies, but --replies is 0",
        ),
        (["--samples", "runs/tiny/samples.jsonl", "--force"], "runs/tiny/samples.jsonl"),
    ],
)
def test_samples_never_replace_other_files(work, convo, options, message):
    before = {path: path.read_bytes() for path in work.rglob("*.jsonl")}
    result = convo("evaluate", MODEL, "valid.jsonl", *options)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert {path: path.read_bytes() for path in work.rglob("*.jsonl")} == before
