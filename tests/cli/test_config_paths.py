"""Missing data and models of a config: reported at their line and column, or at their --set."""

from __future__ import annotations

import re
import sys

import pytest

from tests.commands import settings

CONFIG = """\
name: paths
data:
  train: [train.jsonl, trian.jsonl]
  validation:
    nope/valid.jsonl
model:
  pretrained: exports/tiny/x
  scratch: null
training: {max_steps: 1}
"""


@pytest.mark.parametrize("command", [["train"], ["validate-data", "--config"]])
def test_every_missing_path_has_its_line_and_column(convo, work, command):
    (work / "paths.yaml").write_text(CONFIG)
    result = convo(*command, "paths.yaml", "--json")
    assert result.code == 2
    lines = result.err.splitlines()
    assert lines[0].startswith("error: 3 problems in the configuration:")
    assert lines[1].startswith("paths.yaml:3:24 data.train.1: trian.jsonl does not exist; ")
    assert lines[2].startswith("paths.yaml:5:5 data.validation: nope/valid.jsonl does not exist; ")
    assert lines[3].startswith("paths.yaml:7:15 model.pretrained: exports/tiny/x: ")
    assert not (work / "runs/paths").exists()


@pytest.mark.parametrize("command", [["train"], ["validate-data", "--config"]])
def test_a_single_missing_path_is_one_line_with_its_hint_below(convo, work, command):
    text = CONFIG.replace(", trian.jsonl", "").replace("nope/", "").replace("tiny/x", "tiny")
    (work / "paths.yaml").write_text(text.replace("[train.jsonl]", "trian.jsonl"))
    result = convo(*command, "paths.yaml")
    message = "error: paths.yaml:3:10 data.train: trian.jsonl does not exist\n"
    assert (result.code, result.err) == (2, f"{message}hint: did you mean train.jsonl?\n")


def test_a_path_of_an_option_is_reported_at_the_option(convo, work):
    message = "error: --set data.train: nope.jsonl does not exist\n"
    for command in (["train", "config.yaml"], ["resume", "runs/tiny"]):
        result = convo(*command, *settings("data.train=nope.jsonl"))
        assert result.code == 2
        assert message in result.err
    change = settings("model.scratch=null", "model.pretrained=nope/model/x", "name=other")
    result = convo("train", "config.yaml", *change)
    assert (result.code, "error: --set model.pretrained: nope/model/x" in result.err) == (2, True)


def test_lora_without_peft_names_the_command_that_installs_it(convo, work, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    (work / "paths.yaml").write_text(
        "data: {train: train.jsonl}\nmodel:\n  pretrained: gpt2\n  lora: {rank: 4}\n"
        "training: {max_steps: 1}\n"
    )
    result = convo("train", "paths.yaml")
    assert (result.code, result.err.splitlines()) == (
        2,
        [
            "error: paths.yaml:4:9 model.lora: LoRA needs the package peft",
            'hint: pip install "convo-cli[adapters]"',
        ],
    )
    assert not (work / "runs/convo").exists()


def test_files_given_to_validate_data_take_the_place_of_missing_ones(convo, work):
    (work / "paths.yaml").write_text(
        CONFIG.replace("pretrained: exports/tiny/x\n  scratch: null", "scratch: {}")
    )
    result = convo("validate-data", "train.jsonl", "--config", "paths.yaml", "-q")
    assert (result.code, result.err) == (0, "")


def test_validation_data_that_is_the_training_data_is_one_warning(convo, work):
    result = convo(
        "train",
        "config.yaml",
        *settings(
            "name=same",
            "data.validation=train.jsonl",
            "training.max_steps=1",
            "training.warmup_steps=0",
        ),
    )
    assert result.code == 0
    (warning,) = [line for line in result.err.splitlines() if "also in the training data" in line]
    assert "the scores show what the model memorised" in warning


@pytest.mark.parametrize(
    ("setting", "old", "new"),
    [
        ("model.scratch.width=64", "32", "64"),
        ("dialogue.long_turns=drop", "refuse", "drop"),
        ("tokenizer.kind=bpe", "unigram", "bpe"),
    ],
)
def test_a_key_that_a_run_cannot_change_is_named_with_both_values(convo, work, setting, old, new):
    result = convo("resume", "runs/tiny", *settings(setting))
    key = setting.partition("=")[0]
    assert result.code == 6
    assert f"error: {key} is {new}, but the run was started with {old}" in result.err
    assert "Config(" not in result.err


@pytest.mark.parametrize("value", ["null", "true", "[a, b]", '"text"'])
def test_a_key_that_was_edited_in_a_run_is_shown_in_yaml(convo, work, value):
    path = work / "runs/tiny/config.yaml"
    key = {"null": "max_grad_norm", "true": "gradient_checkpointing", "[a, b]": "assistant"}.get(
        value, "output_dir"
    )
    # The list of names below data.speakers, not the path below data.columns.
    is_list = key == "assistant"
    old = rf"^( *{key}:)" + (r"\n(?: +- .*\n)+" if is_list else r" .*\n")
    text = path.read_text(encoding="utf-8")
    text, num = re.subn(old, rf"\1 {value}\n", text, flags=re.MULTILINE)
    assert num == 1
    path.write_text(text, encoding="utf-8")
    result = convo("resume", "runs/tiny")
    assert result.code == 6
    shown = {"[a, b]": '["a", "b"]', '"text"': "text"}.get(value, value)
    assert f"{key} is {shown}, but " in result.err
    assert not re.search(r"None|True|False|\['|'\w", result.err)


@pytest.mark.parametrize("command", [["train"], ["validate-data", "--config"]])
def test_a_model_that_the_hub_does_not_have_either_is_reported_at_its_key(convo, work, command):
    text = CONFIG.replace(", trian.jsonl", "").replace("nope/valid", "valid")
    (work / "paths.yaml").write_text(text.replace("exports/tiny/x", "models/none"))
    result = convo(*command, "paths.yaml")
    assert result.code == 2
    assert "error: paths.yaml:7:15 model.pretrained: models/none: no such folder; " in result.err
    assert not (work / "runs/paths").exists()
