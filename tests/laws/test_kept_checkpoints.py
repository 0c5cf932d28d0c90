"""The checkpoints of a run on disk: the newest and the best, also after a resume."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest

from convo_cli.config.load import apply_overrides, load_config
from convo_cli.errors import StoppedError
from convo_cli.events import StepDone
from convo_cli.runs.directory import RunDirectory
from convo_cli.training.run import plan_run, resume_run, start_run

KEEP_BEST = 3
CHANGES = {
    "training": {"max_steps": 8, "learning_rate": 1.0, "schedule": "constant", "warmup_steps": 3},
    "evaluation": {"every_steps": 1, "reply_dialogues": 0},
    "checkpoints": {"keep": 1, "keep_best": KEEP_BEST},
}


def losses(run):
    records = map(json.loads, run.metrics.read_text().splitlines())
    return {one["step"]: one["loss"] for one in records if one["event"] == "evaluation"}


def kept(run, steps):
    """The newest of the steps, and those with the best validation losses."""
    scores = losses(run)
    best = sorted(set(steps) & scores.keys(), key=lambda step: (scores[step], step))
    return sorted({max(steps), *best[:KEEP_BEST]})


def resume(run, ignore, which="last", overrides=(), **options):
    config = apply_overrides(load_config(run.config), overrides)
    return RunDirectory(resume_run(run.path, which, config, ignore, **options).run_dir)


@pytest.fixture(scope="module")
def finished(make_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    start_run(make_config(folder, **CHANGES), lambda event: None)
    return RunDirectory(folder / "runs" / "tiny")


@pytest.fixture
def run(finished, tmp_path):
    return RunDirectory(shutil.copytree(finished.path, tmp_path / "runs" / "tiny"))


def test_the_best_are_not_just_the_newest(finished):
    steps = finished.checkpoint_steps()
    assert steps == kept(finished, range(9))
    assert len(steps) == KEEP_BEST + 1


def test_a_run_that_was_stopped_and_resumed_keeps_the_same(finished, tiny_config, tmp_path, ignore):
    def stop(event):
        if isinstance(event, StepDone) and event.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    run = RunDirectory(tmp_path / "runs" / "tiny")
    with pytest.raises(StoppedError):
        start_run(tiny_config(**CHANGES), stop)
    resume(run, ignore)
    assert losses(run) == losses(finished)
    assert run.checkpoint_steps() == finished.checkpoint_steps()


def test_other_numbers_count_from_the_next_save_on(run, ignore):
    before = run.checkpoint_steps()
    resume(run, ignore, overrides=["training.max_steps=10", "checkpoints.keep=9"])
    assert run.checkpoint_steps() == [*before, 9, 10]
    resume(run, ignore, overrides=["training.max_steps=11", "checkpoints.keep=1"])
    assert run.checkpoint_steps() == kept(run, [*before, 9, 10, 11])


@pytest.mark.parametrize("is_fork", [False, True])
def test_from_the_best_one_again_the_best_of_what_is_there_are_kept(run, ignore, is_fork):
    scores = losses(run)
    best = min(scores, key=lambda step: (scores[step], step))
    there = [step for step in run.checkpoint_steps() if step <= best]
    slower = ["training.learning_rate=0.001", "training.max_steps=9"]
    continued = resume(run, ignore, "loss", slower, discard_later=not is_fork)
    assert (continued.path == run.path) == (not is_fork)
    there = [best] if is_fork else there
    assert continued.checkpoint_steps() == kept(continued, [*there, *range(best + 1, 10)])


def test_the_dry_run_counts_them(finished, tiny_config, ignore):
    plan = plan_run(tiny_config(**CHANGES), ignore)
    assert plan.max_checkpoints == len(finished.checkpoint_steps()) + 1
