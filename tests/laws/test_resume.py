"""A resumed run ends with the weights, optimizer and log of one that never stopped, bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from convo_cli.config.load import apply_overrides, load_config
from convo_cli.errors import CheckpointError, StoppedError, UsageError
from convo_cli.events import EvaluationDone, Progress, RunStarted, StepDone
from convo_cli.model.batches.batching import Batching
from convo_cli.runs.checkpoints import read_state
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.event_log import read_metrics
from convo_cli.runs.logs.plots import plot_losses
from convo_cli.runs.provenance.run_info import Parent, read_run_info
from convo_cli.storage.sealed import file_sha256
from convo_cli.training.run import resume_run, start_run
from tests.commands import snapshot
from tests.conftest import SAMPLE_DATA

VOLATILE = {"time", "seconds", "waiting_seconds", "run_dir"}


def _stop_after(step):
    def emit(event):
        if isinstance(event, StepDone) and event.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return emit


def _resume(run_dir, ignore, which="last", overrides=(), emit=None, **options):
    config = apply_overrides(load_config(RunDirectory(run_dir).config), overrides)
    return resume_run(run_dir, which, config, emit or ignore, **options)


def _weights(run_dir: Path, step: int) -> list[str]:
    folder = RunDirectory(run_dir).checkpoint(step)
    return [file_sha256(folder / name) for name in ("model.safetensors", "optimizer.safetensors")]


def _log(run_dir: Path) -> list[dict]:
    records = [
        r for r in read_metrics(run_dir / "metrics.jsonl") if r["event"] in ("step", "evaluation")
    ]
    return [
        {key: value for key, value in record.items() if key not in VOLATILE} for record in records
    ]


CASES: dict[str, Any] = {
    "plain": {},
    "dropout": {
        "model": {"scratch": {"layers": 2, "width": 32, "heads": 2, "context": 128, "dropout": 0.3}}
    },
    "accumulation": {"training": {"micro_batch_size": 3, "batch_size": 4}},
    "curriculum": {"dialogue": {"user_turns_until": 0.5}},
    "bf16": {"training": {"precision": "bf16"}},
    "fp16": {"training": {"precision": "fp16"}},
    "no clipping, constant rate": {"training": {"max_grad_norm": None, "schedule": "constant"}},
    "windows": {"dialogue": {"max_length": 64}},
    "padded batches": {"training": {"packing": "off"}},
    "batches of tokens of files with weights": {
        "data": {
            "train": [
                {"path": str(SAMPLE_DATA / "valid.jsonl"), "weight": 1.5},
                {"path": str(SAMPLE_DATA / "train.jsonl"), "weight": 0.05},
            ],
            "validation": [str(SAMPLE_DATA / name) for name in ("test.jsonl", "valid.jsonl")],
        },
        "training": {"batch_size": None, "batch_tokens": 600},
    },
    "metric patience": {
        "evaluation": {"every_steps": 2, "early_stopping": {"patience": 9, "monitor": "metric"}}
    },
}

QUICK = (
    "plain",
    "dropout",
    "accumulation",
    "curriculum",
    "fp16",
    "batches of tokens of files with weights",
)


@pytest.mark.parametrize(
    ("case", "stops"),
    [
        pytest.param(
            case,
            stops,
            id=f"{case}, {how}",
            marks=[pytest.mark.slow] * (case not in QUICK or (case != "plain" and len(stops) == 1)),
        )
        for case in CASES
        for stops, how in (([3], "stopped at an evaluation"), ([2, 5], "stopped twice between"))
    ],
)
def test_a_resumed_run_is_the_run_that_was_never_stopped(
    tiny_config, tmp_path, ignore, case, stops
):
    config = tiny_config(**CASES[case])
    start_run(config.model_copy(update={"name": "straight"}), ignore)
    straight, stopped = tmp_path / "runs" / "straight", tmp_path / "runs" / "tiny"
    with pytest.raises(StoppedError) as caught:
        start_run(config, _stop_after(stops[0]))
    assert caught.value.exit_code == 128 + signal.SIGTERM
    for stop in stops[1:]:
        with pytest.raises(StoppedError):
            _resume(stopped, ignore, emit=_stop_after(stop))
    _resume(stopped, ignore)
    assert _weights(stopped, 6) == _weights(straight, 6)
    assert _log(stopped) == _log(straight)


def _straight_and_stopped(config, tmp_path, ignore, emit):
    """A run that never stopped, and one that was stopped by this reporter and resumed."""
    start_run(config.model_copy(update={"name": "straight"}), ignore)
    straight, stopped = tmp_path / "runs" / "straight", tmp_path / "runs" / "tiny"
    with pytest.raises(StoppedError):
        start_run(config, emit)
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


@pytest.mark.parametrize("stage", ["evaluating", "generating replies"])
def test_a_stop_inside_an_evaluation_throws_it_away(tiny_config, tmp_path, ignore, stage):
    def stop(event):
        if isinstance(event, Progress) and event.stage == stage:
            os.kill(os.getpid(), signal.SIGTERM)
        assert not isinstance(event, EvaluationDone)

    assert _straight_and_stopped(tiny_config(), tmp_path, ignore, stop) == 3


def test_a_stop_inside_accumulation_waits_for_the_step(tiny_config, tmp_path, ignore, monkeypatch):
    nll, calls = Batching.nll, []

    def stop_in_the_third(self, model, batch):
        calls.append(batch)
        if len(calls) == 6 * 2 + 3:  # after the straight run, in the first half of step 2
            os.kill(os.getpid(), signal.SIGTERM)
        return nll(self, model, batch)

    monkeypatch.setattr(Batching, "nll", stop_in_the_third)
    config = tiny_config(training={"micro_batch_size": 2}, data={"validation": []})
    assert _straight_and_stopped(config, tmp_path, ignore, ignore) == 2


def test_the_plots_of_a_resumed_run_show_the_whole_run(tiny_config, tmp_path, ignore):
    config = tiny_config(logging={"plots": True})
    whole = start_run(config.model_copy(update={"output_dir": str(tmp_path / "a")}), ignore)
    with pytest.raises(StoppedError):
        start_run(config, _stop_after(2))
    fork = _resume(tmp_path / "runs" / "tiny", ignore, overrides=["name=fork"])
    resumed = _resume(tmp_path / "runs" / "tiny", ignore)
    plots, again, of_fork = (RunDirectory(run.run_dir).plots for run in (whole, resumed, fork))
    for name in ("loss.png", "learning_rate.png"):
        assert (again / name).read_bytes() == (plots / name).read_bytes()
    plot_losses(tmp_path / "loss.png", RunDirectory(whole.run_dir).metrics, run_name="fork")
    assert (of_fork / "loss.png").read_bytes() == (tmp_path / "loss.png").read_bytes()


def test_weights_change_at_all(tiny_config, tmp_path, ignore):
    start_run(tiny_config(checkpoints={"keep": 9}), ignore)
    assert len({_weights(tmp_path / "runs" / "tiny", step)[0] for step in (0, 3, 6)}) == 3


@pytest.fixture(scope="module")
def ruined(tmp_path_factory, make_config):
    """A run that a high learning rate ruined, and the step of its best, earlier checkpoint."""
    config = make_config(
        tmp_path_factory.mktemp("ruined"),
        training={"learning_rate": 0.3, "warmup_steps": 6, "max_steps": 8},
        evaluation={"every_steps": 2},
        logging={"tensorboard": True, "plots": False},
    )
    losses = {}
    start_run(
        config, lambda e: losses.update({e.step: e.loss}) if isinstance(e, EvaluationDone) else None
    )
    best = min(losses, key=lambda step: losses[step])
    assert best < 8, losses
    return Path(config.output_dir, "tiny"), best


@pytest.fixture
def ruined_copy(ruined, tmp_path):
    shutil.copytree(ruined[0], tmp_path / "runs" / "tiny")
    return tmp_path / "runs" / "tiny", ruined[1]


def _shorter(best):
    return [f"training.max_steps={best + 1}", "training.warmup_steps=0"]


def _unlocked(folder):
    return {name: state for name, state in snapshot(folder).items() if name != ".lock"}


def test_the_best_checkpoint_is_continued_in_place_if_the_later_ones_may_be_discarded(
    ruined_copy, ignore
):
    run_dir, best = ruined_copy
    before, notices = _weights(run_dir, best), []
    result = _resume(
        run_dir, ignore, "loss", _shorter(best), discard_later=True,
        emit=lambda event: notices.append(getattr(event, "message", "")),
    )  # fmt: skip
    assert (result.step, result.run_dir) == (best + 1, run_dir)
    assert any(f"discarded after step {best}: step-" in notice for notice in notices)
    assert _weights(run_dir, best) == before
    assert RunDirectory(run_dir).checkpoint_steps()[-1] == best + 1


def test_a_fork_ends_as_the_run_that_is_continued_in_place_and_leaves_its_parent_as_it_is(
    ruined, ruined_copy, tmp_path, ignore
):
    parent, best = ruined_copy
    before = _unlocked(parent)
    result = _resume(parent, ignore, "loss", _shorter(best))
    fork = parent.with_name(f"tiny-from-{best}")
    assert (result.run_dir, result.step) == (fork, best + 1)
    assert _unlocked(parent) == before

    in_place = tmp_path / "in place" / "tiny"
    shutil.copytree(ruined[0], in_place)
    _resume(in_place, ignore, "loss", _shorter(best), discard_later=True)
    for step in (best, best + 1):
        assert _weights(fork, step) == _weights(in_place, step)
    assert _log(fork) == _log(in_place)
    samples = [
        [{**one, "time": 0} for one in read_metrics(run / "samples.jsonl")]
        for run in (fork, in_place)
    ]
    assert samples[0] == samples[1]
    assert list((fork / "tensorboard").iterdir())

    info, old = (read_run_info(RunDirectory(run)) for run in (fork, parent))
    assert info.parent == Parent(run_id=old.run_id, name="tiny", step=best)
    assert info.run_id != old.run_id
    assert info.config.name == fork.name == load_config(RunDirectory(fork).config).name
    assert read_state(RunDirectory(fork).checkpoint(best)).run_id == info.run_id
    assert old.parent is None


def test_a_fork_is_a_run_like_any_other(ruined_copy, ignore):
    parent, best = ruined_copy
    fork = _resume(parent, ignore, "loss", _shorter(best)).run_dir
    assert _resume(fork, ignore, overrides=[f"training.max_steps={best + 2}"]).step == best + 2
    again = _resume(parent, ignore, "loss", ["name=again", *_shorter(best)]).run_dir
    assert again == parent.with_name("again")
    third = _resume(again, ignore, "last", ["name=third", f"training.max_steps={best + 3}"])
    assert third.run_dir.name == "third"
    parents = {
        name: read_run_info(RunDirectory(parent.with_name(name))).parent
        for name in ("again", "third")
    }
    assert (parents["again"].name, parents["third"].name) == ("tiny", "again")
    assert RunDirectory(again).checkpoint_steps()[-1] == best + 1, (
        "a fork of the newest leaves it as it is"
    )


@pytest.mark.parametrize("name", [None, "other"])
def test_a_fork_never_takes_the_place_of_what_is_there(ruined_copy, ignore, name):
    parent, best = ruined_copy
    there = parent.with_name(name or f"tiny-from-{best}")
    there.mkdir()
    (there / "notes.txt").write_text("mine")
    before = _unlocked(parent.parent)
    with pytest.raises(CheckpointError, match=f"{there.name}: already exists"):
        _resume(parent, ignore, "loss", _shorter(best) + ([f"name={name}"] if name else []))
    assert {
        name: state for name, state in _unlocked(parent.parent).items() if name != "tiny/.lock"
    } == {name: state for name, state in before.items() if name != "tiny/.lock"}


def test_a_fork_from_before_a_damaged_newest_checkpoint_leaves_that_where_it_is(
    ruined_copy, ignore
):
    parent, _ = ruined_copy
    newest = RunDirectory(parent).checkpoint(8) / "model.safetensors"
    newest.write_bytes(b"x" + newest.read_bytes()[1:])
    before, notices = _unlocked(parent), []
    result = _resume(
        parent, ignore, "last", ["name=other", "training.max_steps=9"], emit=notices.append
    )
    assert result.run_dir.name == "other"
    assert _unlocked(parent) == before
    assert any(
        "step-00000008/model.safetensors: damaged" in getattr(notice, "message", "")
        for notice in notices
    )


def test_a_fork_with_no_step_left_is_not_created(ruined_copy, ignore):
    parent, _ = ruined_copy
    with pytest.raises(
        UsageError, match="other: not created, because no step is left \\(all 8 steps done\\)"
    ):
        _resume(parent, ignore, "last", ["name=other"])
    assert [
        path.name for path in parent.parent.iterdir() if path.is_dir() and "cache" not in path.name
    ] == ["tiny"]


def test_a_new_name_and_discarding_in_place_do_not_go_together(ruined_copy, ignore):
    with pytest.raises(
        UsageError,
        match=r"--discard-later continues .* in place, but --set name=other asks for a new run",
    ):
        _resume(ruined_copy[0], ignore, "loss", ["name=other"], discard_later=True)


def test_the_parent_can_be_resumed_while_its_fork_trains(ruined_copy, ignore):
    parent, best = ruined_copy
    steps = []

    def emit(event):
        if isinstance(event, StepDone) and not steps:
            steps.append(_resume(parent, ignore, overrides=["training.max_steps=9"]).step)

    _resume(parent, ignore, "loss", _shorter(best), emit=emit)
    assert steps == [9]


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
    config = tiny_config(
        training={"learning_rate": 1e-9}, evaluation={"every_steps": 1, "early_stopping": stopping}
    )
    first = start_run(config, ignore)
    assert first.reason == "validation loss did not improve in 2 evaluations"
    before = _log(tmp_path / "runs" / "tiny")
    again = _resume(tmp_path / "runs" / "tiny", ignore)
    assert _log(tmp_path / "runs" / "tiny") == before
    assert (again.step, again.reason) == (first.step, first.reason)
