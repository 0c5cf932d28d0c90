"""A step that runs out of memory ends the run with settings that let it go on as they are named."""

from __future__ import annotations

import re
import shlex

import pytest

from convo_cli.config.load import dump_config
from convo_cli.runs.directory import RunDirectory
from tests.conftest import SAMPLE_DATA, tiny_run
from tests.memory import run_limited

_SETTINGS = {
    "data": {"train": str(SAMPLE_DATA / "train.jsonl"), "validation": []},
    "model": {"scratch": {"layers": 4, "width": 128, "heads": 2, "context": 128, "dropout": 0.0}},
    "training": {"max_steps": 2, "batch_size": 64, "schedule": "constant", "warmup_steps": 0},
    "checkpoints": {"keep": 9},
}
_LIMIT = 240
"""Memory in MiB; a step needs about 300."""


@pytest.mark.slow
def test_each_setting_that_the_message_names_lets_the_run_go_on(tmp_path):
    (tmp_path / "config.yaml").write_text(dump_config(tiny_run(tmp_path, **_SETTINGS)))
    result = run_limited(tmp_path, "train", "config.yaml", "--set", "name=a", limit=_LIMIT)
    assert result.code == 2
    assert "error: not enough memory (" in result.err
    assert RunDirectory(tmp_path / "runs/a").checkpoint(0).is_dir()
    hint = result.err.rpartition("hint: ")[2]
    assert hint.endswith("; everything saved so far is intact\n")
    found = re.findall(r"(\S+): (\S+) \(saves", hint)
    assert "training.micro_batch_size" in dict(found)
    for number, (key, value) in enumerate(found):
        is_own = key.startswith("training.")
        words = ["resume", "runs/a"] if is_own else ["train", "config.yaml"]
        words += ["--set", f"{key}={value}", "--set", f"name=b{number}"]
        result = run_limited(tmp_path, *words, limit=_LIMIT)
        assert result.code == 0, (words, result.err)
    named = re.search(r": convo (resume .*?);", hint)
    assert named is not None
    result = run_limited(tmp_path, *shlex.split(named[1]), limit=_LIMIT)
    assert result.code == 0, result.err
