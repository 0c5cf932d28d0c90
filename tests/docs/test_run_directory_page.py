"""docs/run-directory.md names every field that a run writes, and no other."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convo_cli.events import HealthFinding, Notice
from convo_cli.runs.logs.event_log import MetricsLog
from tests.commands import PICTURES, make_workplace, run_here, settings
from tests.docs.documented_fields import documented, require_equal
from tests.run_events import ON_GPU, evaluation

PAGE = (Path(__file__).parents[2] / "docs" / "run-directory.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A fork of a run from a pretrained model: with changed batches, a warning, signs and a GPU."""
    work = make_workplace(tmp_path_factory.mktemp("work"))
    (work / ".git").mkdir()
    (work / ".git" / "HEAD").write_text("0123456789" * 4 + "\n")
    scratch = settings("name=base", "training.max_steps=1")
    assert run_here(work, "train", "config.yaml", "-q", *scratch).code == 0
    assert run_here(work, "export", "runs/base", "model", "-q").code == 0
    tuned = settings(
        "model.scratch=null",
        "model.pretrained=model",
        "training.max_steps=2",
        "data.test=valid.jsonl",
    )
    assert run_here(work, "train", "config.yaml", "-q", *tuned, *PICTURES).code == 0
    fork = settings("name=fork", "training.max_steps=4", "training.batch_size=5")
    assert run_here(work, "resume", "runs/tiny", "-q", *fork).code == 0
    run = work / "runs" / "fork"
    log = MetricsLog(run / "metrics.jsonl", run / "samples.jsonl", after_step=4)
    log(Notice("the memory is too small for replies", is_warning=True))
    log(replace(evaluation(4), findings=(HealthFinding("echo", "the model repeats the user"),)))
    log(ON_GPU)
    log.close()
    return run


def records(path: Path, event: str) -> list[dict[str, Any]]:
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [record for record in lines if record["event"] == event]


def test_every_event_of_metrics_jsonl(run):
    seen = {json.loads(line)["event"] for line in (run / "metrics.jsonl").read_text().splitlines()}
    assert seen == set(re.findall(r"^### `(\w+)`$", PAGE, flags=re.MULTILINE))
    for event in seen:
        require_equal(records(run / "metrics.jsonl", event), documented(PAGE, f"`{event}`"))


def test_samples_jsonl(run):
    require_equal(records(run / "samples.jsonl", "sample"), documented(PAGE, "samples.jsonl"))


@pytest.mark.parametrize(
    "name", ["run.json", "test.json", "state.json", "MANIFEST.json", "last.json"]
)
def test_a_json_file(run, name):
    folder = run if (run / name).exists() else max((run / "checkpoints").glob("step-*"))
    heading = "last.json, best-loss.json, best-metric.json" if name == "last.json" else name
    value = json.loads((folder / name).read_text(encoding="utf-8"))
    require_equal([value], documented(PAGE, heading))


def test_every_file_of_a_run_and_of_a_checkpoint(run):
    drawn = set(re.findall(r"^  (\S+)", PAGE.split("```")[1], flags=re.MULTILINE))
    files = {f"{path.name}/" if path.is_dir() else path.name for path in run.iterdir()}
    assert files - {".lock"} == drawn
    scratch = run.parent / "base" / "checkpoints"
    for checkpoint in (max(scratch.glob("step-*")), max((run / "checkpoints").glob("step-*"))):
        held = {path.name for path in checkpoint.iterdir()}
        with_lora = {"adapter_model.safetensors", "adapter_config.json", "base_model.json"}
        assert held | {"spiece.model"} | with_lora == set(documented(PAGE, "A checkpoint"))


def test_the_plots_that_the_page_names(run):
    assert {path.name for path in (run / "plots").iterdir()} == {"learning_rate.png", "loss.png"}
    assert "learning_rate.png and loss.png" in PAGE
