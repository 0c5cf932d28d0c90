"""A run from a pretrained model scores it before the first step; a from-scratch run does not."""

from __future__ import annotations

import os
import signal
from functools import partial

import pytest

from convo_cli.config.load import apply_overrides, load_config
from convo_cli.config.schema import ScratchConfig
from convo_cli.errors import StoppedError
from convo_cli.events import EvaluationDone, Notice, Progress, StepDone
from convo_cli.model.create import build_scratch_model
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.event_log import read_metrics
from convo_cli.runs.selection import find_checkpoint
from convo_cli.training.resume.replay import verify_run
from convo_cli.training.run import plan_run, resume_run, start_run

MEASURED = {"time", "seconds", "waiting_seconds"}


@pytest.fixture(scope="module")
def base(tmp_path_factory, make_encoder):
    """A tiny pretrained model in a folder."""
    folder = tmp_path_factory.mktemp("base")
    encoder = make_encoder()
    size = ScratchConfig(layers=1, width=16, heads=2, context=128)
    build_scratch_model(size, encoder, seed=0).save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def config_of(make_config, base):
    """A maker of configs that train the pretrained model, by folder."""
    return partial(
        make_config,
        model={"scratch": None, "pretrained": str(base)},
        evaluation={"every_steps": 2, "reply_dialogues": 2},
        training={"max_steps": 4},
    )


@pytest.fixture(scope="module")
def whole(config_of, tmp_path_factory):
    """A run that was never stopped, and its events."""
    events = []
    result = start_run(config_of(tmp_path_factory.mktemp("whole")), events.append)
    return RunDirectory(result.run_dir), events


def records(run):
    return [
        {key: value for key, value in record.items() if key not in MEASURED}
        for record in read_metrics(run.metrics)
        if record["event"] in ("step", "evaluation")
    ]


def resume(run, emit=lambda event: None, *overrides, which="last"):
    return resume_run(run.path, which, apply_overrides(load_config(run.config), overrides), emit)


def test_the_pretrained_model_is_scored_like_every_later_step(whole):
    run, events = whole
    scores = [event for event in events if isinstance(event, EvaluationDone)]
    assert [event.step for event in scores] == [0, 2, 4]
    assert scores[0].best == ("loss", "metric")
    assert len(scores[0].samples) == 2
    assert [record["step"] for record in records(run) if record["event"] == "evaluation"] == [
        0, 2, 4,
    ]  # fmt: skip
    assert scores[2].loss < scores[0].loss


def test_a_dry_run_counts_it(config_of, make_config, tmp_path, ignore):
    assert plan_run(config_of(tmp_path), ignore).num_evaluations == 3
    without = config_of(tmp_path, data={"validation": []})
    assert plan_run(without, ignore).num_evaluations == 0
    scratch = make_config(
        tmp_path, evaluation={"every_steps": 2}, training={"max_steps": 4}, name="scratch"
    )
    assert plan_run(scratch, ignore).num_evaluations == 2


@pytest.mark.parametrize("stage", ["evaluating", "generating replies"])
def test_a_run_stopped_in_it_repeats_it(whole, config_of, tmp_path, stage):
    def stop(event):
        if isinstance(event, Progress) and event.stage == stage and event.done:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match="stopped after step 0 of 4; the run is saved"):
        start_run(config_of(tmp_path), stop)
    run = RunDirectory(tmp_path / "runs/tiny")
    assert records(run) == []
    resume(run)
    assert records(run) == records(whole[0])


def test_a_run_stopped_after_it_does_not_repeat_it(whole, config_of, tmp_path):
    def stop(event):
        if isinstance(event, EvaluationDone):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError):
        start_run(config_of(tmp_path), stop)
    run, events = RunDirectory(tmp_path / "runs/tiny"), []
    resume(run, events.append)
    assert [event.step for event in events if isinstance(event, EvaluationDone)] == [2, 4]
    assert records(run) == records(whole[0])


def test_a_run_from_it_is_verified_and_forked(whole, ignore):
    run, _ = whole
    verdict = verify_run(run.path, load_config(run.config), ignore)
    assert verdict.difference is None
    resume(run, ignore, "name=fork", "training.max_steps=5")
    fork = RunDirectory(run.path.with_name("fork"))
    assert records(fork)[: len(records(run))] == records(run)


def test_a_model_that_training_makes_worse_stops_early_and_stays_the_best(config_of, tmp_path):
    """Its score is the first that has to be improved on."""
    events = []
    config = config_of(
        tmp_path,
        training={"max_steps": 8, "learning_rate": 10.0, "warmup_steps": 0},
        evaluation={"every_steps": 1, "early_stopping": {"patience": 2}},
    )
    result = start_run(config, events.append)
    assert result.step == 2
    assert result.best[0].step == 0
    assert find_checkpoint(RunDirectory(result.run_dir), "loss", "bleu-4").step == 0
    (warning,) = [
        event.message
        for event in events
        if isinstance(event, Notice) and "did not improve the pretrained model" in event.message
    ]
    assert "at step 0" in warning


def test_a_run_from_scratch_begins_with_its_first_step(tiny_config):
    events = []
    start_run(tiny_config(training={"max_steps": 1}), events.append)
    kinds = [type(one) for one in events if isinstance(one, (EvaluationDone, StepDone))]
    assert kinds == [StepDone, EvaluationDone]
