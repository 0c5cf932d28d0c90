"""`validate-data` with a tokenizer: the tokens and the refusals of `train`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.commands import snapshot


def write(path: Path, *dialogues: object) -> None:
    path.write_text(
        "".join(json.dumps(dialogue) + "\n" for dialogue in dialogues), encoding="utf-8"
    )


def test_the_config_gives_the_tables_of_train(convo):
    result = convo("validate-data", "--config", "config.yaml")
    assert result.code == 0
    assert re.search(r"template: turns +training +validation", result.out)
    assert re.search(
        r"assistant targets \(of tokens\) +[\d,]+ \([\d.]+%\) +[\d,]+ \([\d.]+%\)", result.out
    )
    assert "tokens per dialogue" in result.out
    assert max(map(len, result.out.splitlines())) <= 80


def test_its_numbers_are_those_that_train_logs(convo, work):
    preflight = convo("validate-data", "--config", "config.yaml", "--json").json["preflight"]
    started = json.loads((work / "runs/tiny/metrics.jsonl").read_text().splitlines()[0])
    assert started["event"] == "run_started"
    for key in ("template", "max_length", "training", "validation"):
        assert preflight[key] == started[key]


def test_without_a_tokenizer_there_is_no_preflight(convo):
    assert convo("validate-data", "train.jsonl", "--json").json["preflight"] is None


def test_a_model_folder_counts_tokens_and_writes_nothing(convo, work):
    before = snapshot(work)
    result = convo("validate-data", "train.jsonl", "--tokenizer", "exports/tiny", "--json")
    assert result.code == 0
    assert result.json["preflight"]["template"] == "native"
    assert result.json["preflight"]["training"]["num_targets_by_role"]["assistant"] > 0
    assert snapshot(work) == before


def test_files_given_take_the_place_of_the_configs(convo, work):
    write(work / "other.jsonl", ["Hello", "Hi!"])
    preflight = convo("validate-data", "other.jsonl", "--config", "config.yaml", "--json").json[
        "preflight"
    ]
    assert preflight["training"]["num_dialogues"] == 1
    assert preflight["validation"] is None


def test_what_only_tokens_tell_is_refused_by_line_with_exit_3(convo, work):
    write(work / "other.jsonl", ["Hello", "Hi!"], ["Hello", "so " * 400], ["Hello", "very " * 400])
    result = convo("validate-data", "other.jsonl", "--config", "config.yaml")
    assert result.code == 3
    assert re.search(
        r"error turn-too-long +2\n +other\.jsonl:2:1 \$ +a turn of \d+ tokens does not fit",
        result.out,
    )
    assert result.out.endswith("not trainable: 2 errors\n")
    record = convo("validate-data", "other.jsonl", "--config", "config.yaml", "--json").json
    assert (record["is_trainable"], record["num_errors"], record["preflight"]) == (False, 2, None)
    assert [group["code"] for group in record["preflight_problem_groups"]] == ["turn-too-long"]


def test_train_refuses_the_same_with_the_same_exit_code(convo, work):
    write(work / "other.jsonl", ["Hello", "Hi!"], ["Hello", "so " * 400])
    result = convo(
        "train", "config.yaml", "--set", "data.train=other.jsonl", "--set", "name=other", "-q"
    )
    assert result.code == 3
    assert "other.jsonl:2:1 $ a turn of" in result.err
    assert (
        "hint: all turns would fit into a dialogue.max_length of 402, but the model reads at most "
        "128: set " in result.err
    )
    assert not (work / "runs/other").exists()


def test_no_problem_need_be_listed(convo, work):
    write(work / "other.jsonl", ["Hello", "so " * 400])
    result = convo("validate-data", "other.jsonl", "--config", "config.yaml", "--max-problems", "0")
    assert (result.code, result.out.splitlines()[-1]) == (3, "not trainable: 1 error")


def test_data_with_errors_is_not_encoded(convo, work):
    write(work / "other.jsonl", ["Hello", ""])
    result = convo("validate-data", "other.jsonl", "--config", "config.yaml")
    assert result.code == 3
    assert "template:" not in result.out


def test_tokens_are_shown_with_their_text_ids_and_targets(convo, work):
    write(
        work / "other.jsonl",
        ["Hello <|end|>", "Hi \x1b[31m!".replace("\x1b", "")],
        ["How are you?", "Fine."],
    )
    arguments = ("validate-data", "other.jsonl", "--config", "config.yaml", "--show-tokens", "1")
    shown = convo(*arguments).out
    assert re.search(r"other\.jsonl:1  \d+ tokens, \d+ targets\n +context +<\|user\|>Hello", shown)
    assert "Fine." not in shown
    (example,) = convo(*arguments, "--json").json["preflight"]["shown"]
    assert example["where"] == "other.jsonl:1"
    assert [(stretch["target"], stretch["text"]) for stretch in example["stretches"]] == [
        ("none", "<|user|>Hello <|end|><|end|><|assistant|>"),
        ("assistant", "Hi [31m!<|end|>"),
    ]
    user, assistant = (stretch["ids"] for stretch in example["stretches"])
    assert user.count(assistant[-1]) == 1, "the text that spells the end token is no end token"


def test_targets_have_a_colour_on_a_terminal(convo, work, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = convo(
        "validate-data", "train.jsonl", "--config", "config.yaml", "--show-tokens", "1"
    ).out
    assert "\x1b[32m" in shown, "the assistant's words are green"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train.jsonl", "--show-tokens", "2"), "--show-tokens needs a tokenizer"),
        (("train.jsonl", "--tokenizer", "exports/nothing"), "exports/nothing"),
        (
            ("train.jsonl", "--tokenizer", "exports/tiny", "--config", "config.yaml"),
            "both choose a tokenizer",
        ),
        (("-", "--tokenizer", "exports/tiny"), "stdin can be read only once"),
    ],
)
def test_what_cannot_be_meant_is_exit_2(convo, work, arguments, message):
    before = snapshot(work)
    result = convo("validate-data", *arguments)
    assert result.code == 2
    assert message in result.err
    assert snapshot(work) == before


def test_a_second_train_on_the_same_data_encodes_nothing(convo, work):
    first = convo("train", "config.yaml", "--set", "name=first", "--set", "seed=1").err
    again = convo("train", "config.yaml", "--set", "name=again", "--set", "seed=2").err
    assert "the training data was encoded" not in first or "the training data was encoded" in again
    assert "the training data was encoded earlier; reusing its tokens" in again
    caches = [name for name in os.listdir(work / "runs/.convo-cache") if not name.endswith(".lock")]
    kinds = sorted(name.split("-")[0] for name in caches)
    once = [kind for kind in kinds if kind != "replies"]
    assert once == ["facts", "tokenizer", "tokens", "tokens"]
    assert "replies" in kinds, (
        "the dialogues that get a reply depend on the seed, and the tokens do not"
    )
