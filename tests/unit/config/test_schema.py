"""Keys that exclude each other are one typed choice; what the refusals say is in refused.txt."""

from __future__ import annotations

import pytest

from convo_cli.config.load import apply_overrides
from convo_cli.config.schema import (
    BatchSize,
    Epochs,
    PretrainedModel,
    RunConfig,
    ScratchConfig,
    Steps,
)

CONFIG = RunConfig.model_validate(
    {
        "data": {"train": ["a.jsonl"]},
        "model": {"scratch": {"width": 12}},
        "training": {"max_steps": 3},
    }
)


def with_settings(*settings: str) -> RunConfig:
    return apply_overrides(CONFIG, settings)


def test_the_origin_of_the_model_is_its_size_or_a_name_and_revision() -> None:
    assert CONFIG.model.origin == ScratchConfig(width=12)
    other = with_settings("model.scratch=null", "model.pretrained=a/b", "model.revision=v2")
    assert other.model.origin == PretrainedModel("a/b", "v2")


def test_the_length_of_a_run_is_steps_or_epochs() -> None:
    assert CONFIG.training.length == Steps(3)
    assert with_settings(
        "training.max_steps=null", "training.epochs=1.5"
    ).training.length == Epochs(1.5)


def test_a_step_takes_examples_or_tokens() -> None:
    assert CONFIG.training.batch == BatchSize(16, "examples")
    other = with_settings("training.batch_size=null", "training.batch_tokens=4096")
    assert other.training.batch == BatchSize(4096, "tokens")


@pytest.mark.parametrize(
    ("section", "choice", "values"),
    [
        ("model", "origin", {"pretrained": "a/b"}),
        ("model", "origin", {"scratch": None}),
        ("training", "length", {"epochs": 1.0}),
        ("training", "length", {"max_steps": None}),
        ("training", "batch", {"batch_tokens": 64}),
        ("training", "batch", {"batch_size": None}),
    ],
)
def test_both_keys_or_neither_are_no_choice_in_a_copy_that_was_not_validated(
    section, choice, values
) -> None:
    copy = getattr(CONFIG, section).model_copy(update=values)
    with pytest.raises(ValueError, match="set exactly one of"):
        getattr(copy, choice)
