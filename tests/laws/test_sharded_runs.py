"""A run whose processes each have a part of the model gives what one process gives, but rounding.

AdamW's epsilon is 1e-4, as in the law of worlds.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from convo_cli.config.load import apply_overrides
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.final_scores import read_final_scores
from convo_cli.runs.provenance.run_info import read_config
from convo_cli.training.run import resume_run
from tests.conftest import SAMPLE_DATA
from tests.worlds import (
    Seen,
    require_equal_scores,
    require_equal_steps,
    require_equal_weights,
    train_alone,
    train_in_world,
)

pytestmark = pytest.mark.slow  # two processes import torch and take 30 steps

SIZE = {"layers": 2, "width": 32, "heads": 2, "context": 128, "dropout": 0.0}
CASES: dict[str, Any] = {
    "scored": {
        "data": {
            "train": str(SAMPLE_DATA / "valid.jsonl"),
            "validation": str(SAMPLE_DATA / "test.jsonl"),
            "test": str(SAMPLE_DATA / "test.jsonl"),
        },
        "evaluation": {"every_steps": 4, "reply_dialogues": 3},
    },
    "accumulated": {
        "training": {
            "packing": "off",
            "micro_batch_size": 1,
            "batch_size": 5,
            "gradient_checkpointing": True,
        },
        "dialogue": {"train_on": "all"},
    },
}


def _config(make_config, folder, case, **more):
    changes = {section: dict(values) for section, values in CASES[case].items()}
    training = {"max_steps": 8, "epsilon": 1e-4, "sharding": "full", **more}
    training.update(changes.pop("training", {}))
    changes.setdefault("data", {"validation": []})
    return make_config(folder, name=case, model={"scratch": SIZE}, training=training, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def alone(make_config, folder):
    """Every case, trained by one process, and the first 5 steps of a run that is resumed."""
    seen = {case: train_alone(_config(make_config, folder / "1", case)) for case in CASES}
    early = _config(make_config, folder / "1", "accumulated", max_steps=5, schedule_steps=8)
    train_alone(early.model_copy(update={"name": "early"}))
    return seen


@pytest.fixture(scope="module")
def together(make_config, folder, alone):
    """The same by two processes, the rest of the resumed run, and the first 5 steps of another."""
    runs = {case: _config(make_config, folder / "2", case) for case in CASES}
    half = _config(make_config, folder / "2", "accumulated", max_steps=5, schedule_steps=8)
    runs["half"] = half.model_copy(update={"name": "half"})
    early = folder / "1" / "runs" / "early"
    return train_in_world(2, {**runs, "early": early}, folder / "task-2")


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_like_one_and_each_writes_its_part(alone, together, folder, case):
    require_equal_steps(alone[case], together[case])
    one, two = (folder / str(number) / "runs" / case for number in (1, 2))
    require_equal_weights(one, two)
    shards = RunDirectory(two).checkpoint(8).glob("*-of-*.safetensors")
    assert sorted(file.name for file in shards) == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        "optimizer-00001-of-00002.safetensors", "optimizer-00002-of-00002.safetensors",
    ]  # fmt: skip


def test_two_processes_score_like_one(alone, together, folder):
    require_equal_scores(alone["scored"], together["scored"], num_replies=3)
    one, two = (
        read_final_scores(RunDirectory(folder / str(number) / "runs" / "scored"))
        for number in (1, 2)
    )
    assert math.isclose(one.loss, two.loss, rel_tol=1e-5)
    assert one.step == two.step


def test_two_processes_continue_the_run_of_one(alone, together, folder):
    require_equal_steps({"steps": alone["accumulated"]["steps"][5:]}, together["early"])
    early = folder / "1" / "runs" / "early"
    require_equal_weights(folder / "1" / "runs" / "accumulated", early)
    assert not (RunDirectory(early).checkpoint(8) / "model.safetensors").exists()


def test_one_process_continues_the_run_of_two(alone, together, folder):
    half, seen = RunDirectory(folder / "2" / "runs" / "half"), Seen()
    config = apply_overrides(read_config(half), ["training.max_steps=8"])
    resume_run(half.path, "last", config, seen)
    require_equal_steps({"steps": alone["accumulated"]["steps"][5:]}, seen.record)
    assert (half.checkpoint(8) / "model.safetensors").exists()
