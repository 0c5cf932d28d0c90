"""A stopped and resumed run ends with the weights, optimizer and log of one that never stopped, bit for bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from convo_cli.config.load import apply_overrides, load_config
from convo_cli.errors import CheckpointError, StoppedError
from convo_cli.events import EvaluationDone, Progress, RunStarted, StepDone
from convo_cli.model.layout import Layout
from convo_cli.runs.atomic import file_sha256
from convo_cli.runs.layout import RunDirectory
from convo_cli.runs.metrics import read_metrics
from convo_cli.training.run import resume_run, start_run

VOLATILE = {"time", "seconds", "waiting_seconds", "memory_bytes", "run_dir"}


def _stop_after(step):
    def report(event):
        if isinstance(event, StepDone) and event.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return report


def _resume(run_dir, ignore, which="last", overrides=(), report=None):
    config = apply_overrides(load_config(RunDirectory(run_dir).config), overrides)
    return resume_run(run_dir, which, config, report or ignore)


def _weights(run_dir: Path, step: int) -> list[str]:
    folder = RunDirectory(run_dir).checkpoint(step)
    return [file_sha256(folder / name) for name in ("model.safetensors", "optimizer.safetensors")]


def _log(run_dir: Path) -> list[dict]:
    records = [r for r in read_metrics(run_dir / "metrics.jsonl") if r["event"] in ("step", "evaluation")]
    return [{key: value for key, value in record.items() if key not in VOLATILE} for record in records]


CASES = {
    "plain": {},
    "dropout": {"model": {"scratch": {"layers": 2, "width": 32, "heads": 2, "context": 128, "dropout": 0.3}}},
    "accumulation": {"training": {"micro_batch_size": 3, "batch_size": 4}},
    "curriculum": {"dialogue": {"user_turns_until": 0.5}},
    "bf16": {"training": {"precision": "bf16"}},
    "fp16": {"training": {"precision": "fp16"}},
    "no clipping, constant rate": {"training": {"max_grad_norm": None, "schedule": "constant"}},
    "windows": {"dialogue": {"max_length": 64}},
    "padded batches": {"training": {"packing": "off"}},
    "batches of tokens": {"training": {"batch_size": None, "batch_tokens": 600}},
    "metric patience": {"evaluation": {"every_steps": 2, "early_stopping": {"patience": 9, "monitor": "metric"}}},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stops", [[3], [2, 5]], ids=["stopped at an evaluation", "stopped twice between"])
def test_a_resumed_run_is_the_run_that_was_never_stopped(tiny_config, tmp_path, ignore, case, stops):
    config = tiny_config(**CASES[case])
    start_run(config.model_copy(update={"name": "straight"}), ignore)
    straight, stopped = tmp_path / "runs" / "straight", tmp_path / "runs" / "tiny"
    with pytest.raises(StoppedError) as caught:
        start_run(config, _stop_after(stops[0]))
    assert caught.value.exit_code == 128 + signal.SIGTERM
    for stop in stops[1:]:
        with pytest.raises(StoppedError):
            _resume(stopped, ignore, report=_stop_after(stop))
    _resume(stopped, ignore)
    assert _weights(stopped, 6) == _weights(straight, 6)
    assert _log(stopped) == _log(straight)


def _straight_and_stopped(config, tmp_path, ignore, report):
    """A run that never stopped, and one that was stopped by this reporter and resumed."""
    start_run(config.model_copy(update={"name": "straight"}), ignore)
    straight, stopped = tmp_path / "runs" / "straight", tmp_path / "runs" / "tiny"
    with pytest.raises(StoppedError):
        start_run(config, report)
    at = RunDirectory(stopped).checkpoint_steps()[-1]
    _resume(stopped, ignore)
    assert (_weights(stopped, 6), _log(stopped)) == (_weights(straight, 6), _log(straight))
    return at


def test_a_stop_exactly_at_the_end_of_an_epoch(tiny_config, tmp_path, ignore):
    steps_per_epoch = []

    def stop(event):
        if isinstance(event, RunStarted):
            steps_per_epoch.append(event.training.num_examples / 5)
        if isinstance(event, StepDone) and event.epoch == 1.0:
            os.kill(os.getpid(), signal.SIGTERM)

    config = tiny_config(training={"batch_size": 5, "max_steps": 6})
    assert [_straight_and_stopped(config, tmp_path, ignore, stop)] == steps_per_epoch == [5]


@pytest.mark.parametrize("stage", ["evaluating", "replying"])
def test_a_stop_inside_an_evaluation_throws_it_away(tiny_config, tmp_path, ignore, stage):
    def stop(event):
        if isinstance(event, Progress) and event.stage == stage:
            os.kill(os.getpid(), signal.SIGTERM)
        assert not isinstance(event, EvaluationDone)

    assert _straight_and_stopped(tiny_config(), tmp_path, ignore, stop) == 3


def test_a_stop_inside_accumulation_waits_for_the_step(tiny_config, tmp_path, ignore, monkeypatch):
    nll_sum, calls = Layout.nll_sum, []

    def stop_in_the_third(self, model, batch):
        calls.append(batch)
        if len(calls) == 6 * 2 + 3:  # behind the straight run, in the first half of step 2
            os.kill(os.getpid(), signal.SIGTERM)
        return nll_sum(self, model, batch)

    monkeypatch.setattr(Layout, "nll_sum", stop_in_the_third)
    config = tiny_config(training={"micro_batch_size": 2}, data={"validation": []})
    assert _straight_and_stopped(config, tmp_path, ignore, ignore) == 2


def test_weights_change_at_all(tiny_config, tmp_path, ignore):
    start_run(tiny_config(checkpoints={"keep": 9}), ignore)
    assert len({_weights(tmp_path / "runs" / "tiny", step)[0] for step in (0, 3, 6)}) == 3


def test_the_best_checkpoint_by_loss_is_resumed_and_what_came_after_is_discarded(tiny_config, tmp_path, ignore):
    """A learning rate that ruins the model after step 3 makes an earlier checkpoint the best."""
    config = tiny_config(
        training={"learning_rate": 0.3, "warmup_steps": 6, "max_steps": 8}, evaluation={"every_steps": 2}
    )
    losses = {}
    start_run(config, lambda e: losses.update({e.step: e.loss}) if isinstance(e, EvaluationDone) else None)
    best = min(losses, key=losses.get)
    assert best < 8, losses
    run_dir = tmp_path / "runs" / "tiny"
    before = _weights(run_dir, best)
    notices = []
    result = _resume(
        run_dir, ignore, "loss", [f"training.max_steps={best + 1}", "training.warmup_steps=0"],
        report=lambda event: notices.append(getattr(event, "message", "")),
    )  # fmt: skip
    assert result.step == best + 1
    assert any(f"discarding what came after step {best}" in notice for notice in notices)
    assert _weights(run_dir, best) == before
    assert RunDirectory(run_dir).checkpoint_steps()[-1] == best + 1


def test_resuming_by_a_score_that_no_checkpoint_has_is_an_error(tiny_config, tmp_path, ignore):
    start_run(tiny_config(data={"validation": []}), ignore)
    with pytest.raises(CheckpointError, match="no checkpoint has a validation metric"):
        _resume(tmp_path / "runs" / "tiny", ignore, "metric")


def test_a_finished_run_can_be_extended(tiny_config, tmp_path, ignore):
    start_run(tiny_config(), ignore)
    result = _resume(tmp_path / "runs" / "tiny", ignore, overrides=["training.max_steps=9"])
    assert (result.step, result.reason) == (9, "all 9 steps done")


def test_early_stopping_survives_a_resume(tiny_config, tmp_path, ignore):
    """Patience that is used up stays used up: resuming a run that stopped early ends at once."""
    stopping = {"patience": 2, "min_delta": 0.5}
    config = tiny_config(training={"learning_rate": 1e-9}, evaluation={"every_steps": 1, "early_stopping": stopping})
    first = start_run(config, ignore)
    assert first.reason == "validation loss did not improve in 2 evaluations"
    before = _log(tmp_path / "runs" / "tiny")
    again = _resume(tmp_path / "runs" / "tiny", ignore)
    assert _log(tmp_path / "runs" / "tiny") == before
    assert (again.step, again.reason) == (first.step, first.reason)
