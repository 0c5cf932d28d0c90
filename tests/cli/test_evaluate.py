"""`convo evaluate`: the same scores as training reported, as a table or as one object."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from convo_cli.metrics.metric_table import METRICS
from convo_cli.runs.logs.event_log import read_metrics

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
    assert counts.endswith(" targets 1 reply")
    assert not any("targets" in line for line in lines if "│" in line)


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
