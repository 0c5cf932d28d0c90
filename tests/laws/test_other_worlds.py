"""A run may be resumed by 1, 4 and 2 processes, with and without sharding.

Losses, gradient norms and weights are those of an uninterrupted run of one process except for
rounding; AdamW's epsilon is 1e-4, as in `tests/laws/test_world.py`.
"""

from __future__ import annotations

import json
import math

import pytest
import torch

from convo_cli.runs.directory import RunDirectory
from tests.worlds import train_alone, train_in_world, weights

pytestmark = pytest.mark.slow  # four worlds start, of up to four processes

SIZE = {"layers": 2, "width": 32, "heads": 2, "context": 128, "dropout": 0.0}
WORLDS = ((2, "none"), (1, "none"), (4, "full"), (2, "full"), (2, "none"))
"""Processes and sharding of two steps each."""


def _config(make_config, folder, max_steps, sharding="none"):
    training = {"max_steps": max_steps, "schedule_steps": 10, "epsilon": 1e-4, "sharding": sharding}
    checkpoints = {"every_steps": 2, "keep": 9}
    return make_config(
        folder, model={"scratch": SIZE}, training=training, data={"validation": []},
        checkpoints=checkpoints,
    )  # fmt: skip


def test_a_run_of_many_worlds_is_that_of_one(make_config, tmp_path):
    alone = train_alone(_config(make_config, tmp_path / "alone", 10))["steps"]
    (first, sharding), *others = WORLDS
    config = _config(make_config, tmp_path / "moved", 2, sharding)
    steps = train_in_world(first, {"run": config}, tmp_path / "task-0")["run"]["steps"]
    run, straight = (RunDirectory(tmp_path / name / "runs" / "tiny") for name in ("moved", "alone"))
    for turn, (size, sharding) in enumerate(others, 1):
        training = {"max_steps": 2 * turn + 2, "sharding": sharding}
        task = {"run": {"resume": str(run.path), "training": training}}
        steps += train_in_world(size, task, tmp_path / f"task-{turn}")["run"]["steps"]
        is_sharded = (run.checkpoint(2 * turn + 2) / "model.safetensors.index.json").exists()
        assert is_sharded == (sharding == "full")

    assert len(steps) == len(alone) == 10
    for (loss, norm, *counts, _), (loss_2, norm_2, *counts_2, _) in zip(alone, steps, strict=True):
        assert counts == counts_2
        assert math.isclose(loss, loss_2, rel_tol=1e-5)
        assert math.isclose(norm, norm_2, rel_tol=1e-5)
    for step in range(2, 11, 2):
        one, other = weights(straight.path, step), weights(run.path, step)
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            difference = torch.linalg.vector_norm(tensor - other[name])
            assert difference <= 1e-4 * torch.linalg.vector_norm(tensor), name

    changes = [
        (change["step"], change["message"])
        for change in json.loads(run.info.read_text())["changes"]
        if change["message"].startswith(("processes:", "sharding:"))
    ]
    assert [(step, message.split(":")[0]) for step, message in changes] == [
        (2, "processes"), (4, "processes"), (4, "sharding"), (6, "processes"), (8, "sharding"),
    ]  # fmt: skip
