"""`training.micro_batch_size: auto` under a limit of memory: the losses are those without one.

The limit is that of `ulimit -d`, set for real processes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convo_cli.config.load import dump_config
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.event_log import read_metrics
from convo_cli.runs.provenance.run_info import read_run_info
from convo_cli.storage.sealed import file_sha256
from tests.conftest import SAMPLE_DATA, tiny_run
from tests.forks import start_fork
from tests.memory import run_limited

BATCH = 64
_SETTINGS = {
    "data": {"train": str(SAMPLE_DATA / "train.jsonl"), "validation": []},
    "model": {
        "scratch": {"layers": 4, "width": 128, "heads": 2, "context": 128, "dropout": 0.0}
    },
    "training": {
        "max_steps": 2, "batch_size": BATCH, "micro_batch_size": "auto", "schedule": "constant",
        "warmup_steps": 0,
    },
    "checkpoints": {"keep": 9},
}  # fmt: skip


def train(folder: Path, name: str, *settings: str, limit: int | None = None) -> tuple[Path, str]:
    overrides = [word for setting in (f"name={name}", *settings) for word in ("--set", setting)]
    result = run_limited(folder, "train", "config.yaml", *overrides, limit=limit)
    assert result.code == 0, result.err
    return folder / "runs" / name, result.err


def resume(run: Path, *arguments: str, limit: int | None = None) -> str:
    result = run_limited(run.parent.parent, "resume", str(run), *arguments, limit=limit)
    assert result.code == 0, result.err
    return result.err


def size_of(run: Path) -> int | None:
    return read_run_info(RunDirectory(run)).execution.micro_batch_size


def losses(run: Path) -> list[float]:
    records = read_metrics(run / "metrics.jsonl")
    return [record["loss"] for record in records if record["event"] == "step"]


def weights(run: Path, step: int) -> list[str]:
    folder = RunDirectory(run).checkpoint(step)
    return [file_sha256(folder / name) for name in ("model.safetensors", "optimizer.safetensors")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("auto")
    (folder / "config.yaml").write_text(dump_config(tiny_run(folder, **_SETTINGS)))
    return folder


@pytest.fixture(scope="module")
def free(folder):
    return train(folder, "free")


@pytest.fixture(scope="module")
def limited(folder, free):
    return train(folder, "limited", limit=LIMIT)


LIMIT = 250
"""Too little for a pass of a whole step, and enough for a part of it."""


def test_a_limit_chooses_a_smaller_size_and_the_losses_are_the_same_to_rounding(free, limited):
    (whole, _), (part, err) = free, limited
    assert size_of(whole) == BATCH
    assert 1 < size_of(part) < BATCH
    assert "may run out of memory" not in err
    assert f"micro-batches: {size_of(part)} examples (a pass needs up to " in err
    assert losses(part) == pytest.approx(losses(whole), rel=1e-5)


@pytest.mark.slow
def test_without_auto_the_limit_ends_the_run(folder, free):
    settings = ("name=whole", "training.micro_batch_size=null")
    words = [word for setting in settings for word in ("--set", setting)]
    result = run_limited(folder, "train", "config.yaml", *words, limit=LIMIT)
    assert result.code == 2
    assert "error: not enough memory" in result.err


@pytest.mark.slow
def test_the_same_limit_chooses_the_same_size(folder, limited):
    again, _ = train(folder, "again", limit=LIMIT)
    assert size_of(again) == size_of(limited[0])
    assert weights(again, 2) == weights(limited[0], 2)


def test_a_resume_keeps_the_number_that_still_fits(folder, limited):
    """The bits are those of the run that was never stopped, also with more memory than before."""
    fork, size = folder / "runs" / "fork", size_of(limited[0])
    number = f"training.micro_batch_size={size}"  # a new trial may find another one by chance
    longer, _ = train(folder, "longer", "training.max_steps=4", number)
    err = resume(limited[0], "--set", "training.max_steps=4", "--set", "name=fork")
    assert "micro-batch" not in err.replace("measuring the memory of a micro-batch", "")
    assert size_of(fork) == size
    assert weights(fork, 4) == weights(longer, 4)
    assert [change.message for change in read_run_info(RunDirectory(fork)).changes] == [
        "training.max_steps: 2 -> 4",
        "training.schedule_steps: null -> 2",
    ]


def test_a_resume_with_less_memory_picks_a_new_number_and_reports_it(folder, free):
    err = resume(free[0], "--set", "training.max_steps=4", "--set", "name=less", limit=LIMIT)
    less = folder / "runs" / "less"
    size = size_of(less)
    assert 1 <= size < BATCH
    assert "micro-batch size: chosen again, because all examples of a step no longer fit" in err
    change = f"micro-batch size: the run had the whole step and continues with {size} examples"
    assert f"warning: {change}, so numbers may differ in the last digits from step 3 on" in err
    assert change in [one.message for one in read_run_info(RunDirectory(less)).changes]
    whole, _ = train(folder, "longest", "training.max_steps=4")
    assert losses(less)[2:] == pytest.approx(losses(whole)[2:], rel=1e-5)


@pytest.mark.slow
def test_verify_takes_the_stored_number(limited):
    err = resume(limited[0], "--verify")
    assert "micro-batch" not in err.replace("measuring the memory of a micro-batch", "")


@pytest.mark.slow
@pytest.mark.parametrize("saves_memory", ["false", "true"])
@pytest.mark.parametrize("limit", [150, 250, 400])
def test_the_estimate_agrees_with_the_choice(folder, saves_memory, limit):
    settings = (f"name=plan-{limit}", f"training.gradient_checkpointing={saves_memory}")
    words = [word for setting in settings for word in ("--set", setting)]
    result = run_limited(folder, "train", "config.yaml", "--dry-run", *words, limit=limit)
    assert result.code == 0
    assert "micro-batches: " in result.err
    assert "may not fit" not in result.err
    assert "may run out of memory" not in result.err
    assert "than is free" not in result.out


def test_a_dry_run_shows_the_number(folder, free):
    settings = ("--set", "name=dry", "--dry-run")
    process = start_fork(folder, "train", "config.yaml", *settings)
    assert "micro-batches all examples of a step\n" in process.communicate()[0].decode()
    process = start_fork(folder, "train", "config.yaml", *settings, "--json")
    assert json.loads(process.communicate()[0])["micro_batch_size"] == BATCH


@pytest.mark.slow
def test_all_processes_of_a_world_take_the_smallest_number(folder):
    whole, _ = train(folder, "world", "training.devices=2", "training.device=cpu")
    tight, _ = train(folder, "tight", "training.devices=2", "training.device=cpu", limit=LIMIT)
    assert size_of(whole) == BATCH
    assert 1 < size_of(tight) < BATCH
    assert losses(tight) == pytest.approx(losses(whole), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [("training.packing=off",), ("training.batch_size=null", "training.batch_tokens=4000")],
)
def test_padded_rows_and_steps_of_tokens_are_cut_too(folder, settings):
    name = settings[0].partition("=")[0].rpartition(".")[2]
    whole, _ = train(folder, name, *settings)
    part, _ = train(folder, f"{name}-part", *settings, limit=180)
    assert size_of(whole) == (BATCH if name == "packing" else None)
    assert 1 <= size_of(part) < BATCH
    assert losses(part) == pytest.approx(losses(whole), rel=1e-5)
