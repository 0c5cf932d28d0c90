"""A dry run estimates the memory of the run: within 20 % of its peak, and as a sum of its parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cases import quick_first
from tests.commands import settings
from tests.forks import run_fork

_SAMPLES = Path(__file__).parents[2] / "sample_data"
_OPTIONS = settings(
    f"data.train=[{_SAMPLES / 'train.jsonl'}]",
    f"data.validation=[{_SAMPLES / 'valid.jsonl'}]",
    "model.scratch.layers=4",
    "model.scratch.width=192",
    "training.batch_size=48",
    "training.max_steps=2",
    "training.warmup_steps=1",
    "evaluation.reply_dialogues=2",
    "logging.plots=false",
    "logging.tensorboard=false",
)


@pytest.mark.parametrize(
    ("saves_memory", "micro"),
    quick_first([("false", "null"), ("true", "null"), ("false", "12"), ("true", "12")]),
)
def test_the_estimate_is_within_a_fifth_of_the_peak_of_the_run(tmp_path, saves_memory, micro):
    """In forks, which begin with the memory of their server: the same for both commands."""
    assert run_fork(tmp_path, "init-config", "-o", "config.yaml").code == 0
    options = [
        *_OPTIONS,
        *settings(
            f"training.gradient_checkpointing={saves_memory}", f"training.micro_batch_size={micro}"
        ),
        "--json",
        "-q",
    ]
    plan = run_fork(tmp_path, "train", "config.yaml", "--dry-run", *options).json
    memory = plan["memory"]
    assert memory["basis"] == "measured"
    names = ("program", "weights", "gradients", "moments", "activations", "logits", "loading")
    assert sum(memory[f"{name}_bytes"] for name in names) == memory["peak_bytes"]
    assert memory["peak_bytes"] < memory["free_bytes"]
    assert memory["savings"] == []
    assert plan["seconds"] == pytest.approx(2 * plan["seconds_per_step"])

    run = run_fork(tmp_path, "train", "config.yaml", *options).json["run_dir"]
    lines = (tmp_path / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    peak = max(one["peak_memory_bytes"] for one in records if one["event"] == "device")
    assert memory["peak_bytes"] == pytest.approx(peak, rel=0.2)
