"""A dry run promises what the run then does: steps, tokens, checkpoints, sizes, learning rates."""

from __future__ import annotations

import pytest

from convo_cli.events import CheckpointSaved, EvaluationDone, RunStarted, StepDone
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.provenance.run_info import read_run_info
from convo_cli.training.run import plan_run, start_run
from convo_cli.training.saving import OPTIMIZER_FILE, optimizer_file_bytes

_CONFIGS = {
    "with evaluations": {"training": {"max_steps": 5}, "evaluation": {"every_steps": 2}},
    "checkpoints alone": {
        "training": {"max_steps": 7, "schedule": "linear", "warmup_steps": 3},
        "data": {"validation": []},
        "checkpoints": {"every_steps": 1, "keep": 2},
    },
    "epochs of tokens with a curriculum": {
        "training": {"max_steps": None, "epochs": 2.3, "batch_size": None, "batch_tokens": 300},
        "dialogue": {"user_turns_until": 0.4},
        "evaluation": {"every_steps": None},
    },
    "all turns, a longer schedule": {
        "training": {"max_steps": 3, "schedule_steps": 20, "micro_batch_size": 2},
        "dialogue": {"train_on": "all"},
        "checkpoints": {"every_steps": 2, "keep": 1},
    },
}


@pytest.mark.parametrize("changes", _CONFIGS.values(), ids=_CONFIGS.keys())
def test_a_run_is_as_its_dry_run_says(tiny_config, tmp_path, ignore, changes):
    config = tiny_config(**changes)
    run = RunDirectory(tmp_path / "runs" / "tiny")
    plan = plan_run(config, ignore)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".convo-cache"]

    events, on_disk = [], []

    def emit(event):
        events.append(event)
        if isinstance(event, CheckpointSaved):
            on_disk.append(len(run.checkpoint_steps()))

    start_run(config, emit)

    def of(kind):
        return [event for event in events if isinstance(event, kind)]

    steps = of(StepDone)
    assert of(RunStarted) == [plan.start]
    assert read_run_info(run).max_steps == plan.start.max_steps == len(steps)
    assert plan.epochs == steps[-1].epoch
    assert plan.num_tokens == sum(step.num_tokens for step in steps) == steps[-1].tokens_seen
    assert plan.num_targets == sum(step.num_targets for step in steps)
    assert plan.num_evaluations == len(of(EvaluationDone))
    assert plan.num_checkpoints == 1 + len(on_disk)
    rates = {step.step: step.learning_rate for step in steps}
    assert {step: rates[step] for step, _ in plan.learning_rates} == dict(plan.learning_rates)
    assert {1, len(steps)} <= dict(plan.learning_rates).keys()
    assert max(rates.values()) == max(rate for _, rate in plan.learning_rates)

    last = run.checkpoint(len(steps))
    size = sum(file.stat().st_size for file in last.iterdir())
    assert plan.checkpoint_bytes == pytest.approx(size, abs=1024)  # state.json grows by its numbers
    if config.data.validation:
        assert max(on_disk) <= plan.max_checkpoints
    else:
        assert max(on_disk) == plan.max_checkpoints


def test_the_size_of_the_optimizers_file_is_exact(tiny_config, tmp_path, ignore):
    from convo_cli.training.saving import load_checkpoint_model

    start_run(tiny_config(training={"max_steps": 1}, data={"validation": []}), ignore)
    checkpoint = RunDirectory(tmp_path / "runs" / "tiny").checkpoint(1)
    expected = optimizer_file_bytes(load_checkpoint_model(checkpoint))
    assert (checkpoint / OPTIMIZER_FILE).stat().st_size == expected
