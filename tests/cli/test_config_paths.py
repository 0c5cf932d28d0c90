"""Missing data and models of a config: reported at their line and column, or at their --set."""

from __future__ import annotations

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
