"""A run that is going wrong is flagged at its first evaluation; a sound one never is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convo_cli.config.presets import PRESETS
from convo_cli.config.schema import RunConfig, ScratchConfig
from convo_cli.data.dialogue import as_messages
from convo_cli.events import EvaluationDone, Notice
from convo_cli.tokens.store import NO_TARGET, TokenStore
from convo_cli.training import build
from convo_cli.training.run import start_run
from tests.conftest import SAMPLE_DATA

SIZE = {"layers": 2, "width": 48, "heads": 2, "context": 128}
FIRST = 60
"""Steps before the first evaluation."""


@pytest.fixture(scope="module")
def config(tmp_path_factory, make_config):
    """A maker of configs of a small model that learns the sample data, by changes."""

    def make(**changes: Any) -> RunConfig:
        training = {
            "max_steps": FIRST,
            "batch_size": 16,
            "learning_rate": 4e-3,
            "warmup_steps": 10,
            "schedule": "constant",
            **changes.pop("training", {}),
        }
        values = {
            "data": {"train": str(SAMPLE_DATA / "train.jsonl")},
            "model": {"scratch": SIZE},
            "training": training,
            "evaluation": {"every_steps": FIRST, "reply_dialogues": 16},
            "generation": {"max_new_tokens": 16},
            **changes,
        }
        return make_config(tmp_path_factory.mktemp("run"), **values)

    return make


def flagged(config: RunConfig) -> tuple[list[set[str]], list[str]]:
    """Return the kinds of findings of each evaluation, and the warnings."""
    events: list[Any] = []
    start_run(config, events.append)
    kinds = [
        {finding.kind for finding in event.findings}
        for event in events
        if isinstance(event, EvaluationDone)
    ]
    return kinds, [one.message for one in events if isinstance(one, Notice) and one.is_warning]


def changed(dialogues, folder: Path, change) -> str:
    """Write the training dialogues with changed messages, and return the path."""
    file = folder / "changed.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for number, dialogue in enumerate(dialogues):
            messages = change(number, as_messages(dialogue.turns))
            out.write(json.dumps({"messages": messages}) + "\n")
    return str(file)


@pytest.mark.slow
def test_a_sound_run_is_never_flagged(config):
    kinds, warnings = flagged(config(training={"max_steps": 2 * FIRST}))
    assert kinds == [set(), set()]
    assert not [warning for warning in warnings if "overfitting" not in warning]


def test_a_run_whose_end_token_is_masked_is_flagged(config, monkeypatch):
    prepare = build.prepare_data

    def masked(inputs, encoder):
        data = prepare(inputs, encoder)
        store = data.train
        is_end = np.isin(store.input_ids[:], encoder.stop_ids)
        targets = np.where(is_end, np.uint8(NO_TARGET), store.targets[:])
        columns = (store.lengths, store.dialogue_of, store.dialogues)
        return replace(data, train=TokenStore(store.input_ids[:], targets, *columns))

    monkeypatch.setattr(build, "prepare_data", masked)
    kinds, warnings = flagged(config())
    assert kinds == [{"end-token"}]
    (warning,) = [one for one in warnings if "end token" in one]
    assert "--show-tokens" in warning


def test_a_learning_rate_of_a_hundred_times_is_flagged(config):
    kinds, warnings = flagged(config(training={"learning_rate": 0.4}))
    assert ["loss" in kind for kind in kinds] == [True]
    assert len([one for one in warnings if "training.learning_rate" in one]) == 1


def test_a_run_on_copies_of_the_users_turns_is_flagged(config, sample_dialogues, tmp_path):
    def copy(number, messages):
        return [
            {**one, "content": messages[index - 1]["content"]}
            if index and one["role"] == "assistant"
            else one
            for index, one in enumerate(messages)
        ]

    train = changed(sample_dialogues, tmp_path, copy)
    kinds, warnings = flagged(config(data={"train": train}, training={"max_steps": 2}))
    assert ["echo" in kind for kind in kinds] == [True]
    assert len([one for one in warnings if "copies of the user's turn" in one]) == 1


def test_roles_swapped_in_half_of_the_training_data_are_flagged(config, sample_dialogues, tmp_path):
    other = {"user": "assistant", "assistant": "user", "system": "system"}

    def swap(number, messages):
        return [{**one, "role": other[one["role"]]} for one in messages] if number % 2 else messages

    train = changed(sample_dialogues, tmp_path, swap)
    kinds, _ = flagged(config(data={"train": train}, training={"max_steps": 2}))
    assert ["roles" in kind for kind in kinds] == [True]


@pytest.fixture(scope="module")
def base(tmp_path_factory, make_encoder):
    """A tiny model that has learned nothing, for the presets of pretrained models."""
    from convo_cli.model.create import build_scratch_model

    folder = tmp_path_factory.mktemp("base")
    encoder = make_encoder()
    build_scratch_model(ScratchConfig(**SIZE), encoder, seed=0).save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain_data(tmp_path_factory, sample_dialogues):
    """The sample data without system turns, for which not every template has a place."""

    def plain(number, messages):
        return [one for one in messages if one["role"] != "system"]

    files = {}
    for name, dialogues in (
        ("train", sample_dialogues[25:]),
        ("validation", sample_dialogues[:25]),
    ):
        files[name] = [changed(dialogues, tmp_path_factory.mktemp(name), plain)]
    return files


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_no_run_of_any_preset_is_flagged(preset, rate, base, plain_data, tmp_path):
    """At sizes and lengths that a test can afford; ``rate`` also covers slow starts."""
    config = PRESETS[preset].config()
    is_scratch = config.model.scratch is not None
    model = {"scratch": SIZE} if is_scratch else {"pretrained": str(base)}
    template = "turns" if config.dialogue.template == "native" else config.dialogue.template
    training = config.training.model_copy(
        update={
            "max_steps": 80, "epochs": None,
            "batch_size": min(16, config.training.batch_size or 16), "learning_rate": 3e-3 * rate,
            "warmup_steps": 20, "precision": "fp32", "micro_batch_size": None,
            "schedule_steps": None,
        }
    )  # fmt: skip
    run = RunConfig.model_validate(
        {
            **config.model_dump(),
            "output_dir": str(tmp_path),
            "data": plain_data,
            "tokenizer": {"vocab_size": 900},
            "model": model,
            "dialogue": {
                **config.dialogue.model_dump(), "max_length": 128, "template": template,
            },
            "training": training.model_dump(),
            "evaluation": {"every_steps": 10, "reply_dialogues": 16},
            "generation": {"max_new_tokens": 16},
            "logging": {"tensorboard": False, "plots": False},
        }
    )  # fmt: skip
    kinds, _ = flagged(run)
    assert len(kinds) == 8 + (not is_scratch)
    assert all(kind == set() for kind in kinds), kinds
