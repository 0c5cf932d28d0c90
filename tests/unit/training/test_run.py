"""The composition root: refusals before a run directory exists, and refusals of a resume."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest

from convo_cli.config.load import apply_overrides, load_config
from convo_cli.errors import ChangedError, CheckpointError, DataError, ModelError, StoppedError
from convo_cli.events import (
    CheckpointSaved,
    EvaluationDone,
    Notice,
    Progress,
    RunFinished,
    RunStarted,
    StepDone,
)
from convo_cli.runs.checkpoints import read_state
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.evaluations import read_evaluations, weights_of
from convo_cli.runs.provenance.run_info import read_run_info
from convo_cli.storage.atomic import publish_directory
from convo_cli.storage.sealed import file_sha256, verify_directory
from convo_cli.training import build
from convo_cli.training.run import resume_run, start_run
from tests.commands import snapshot


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_config):
    """A run of four steps, its config, its result and its events."""
    events = []
    config = make_config(
        tmp_path_factory.mktemp("finished"),
        training={"max_steps": 4},
        evaluation={"every_steps": 2, "max_dialogues": 3},
    )
    result = start_run(config, events.append)
    return result, events


@pytest.fixture
def run(finished, tmp_path):
    """A copy of that run at another place, since a run directory can be moved."""
    shutil.copytree(finished[0].run_dir, tmp_path / "moved")
    return RunDirectory(tmp_path / "moved")


def resume(run, ignore, *overrides, emit=None):
    return resume_run(
        run.path, "last", apply_overrides(load_config(run.config), overrides), emit or ignore
    )


def test_events_come_in_order_and_tell_the_sizes(finished):
    result, events = finished
    kinds = [
        type(event)
        for event in events
        if type(event) in (RunStarted, StepDone, EvaluationDone, CheckpointSaved, RunFinished)
    ]
    assert kinds == [
        RunStarted, StepDone, StepDone, CheckpointSaved, EvaluationDone, StepDone, StepDone,
        CheckpointSaved, EvaluationDone, RunFinished,
    ]  # fmt: skip
    started = next(event for event in events if isinstance(event, RunStarted))
    assert (started.first_step, started.max_steps, started.device, started.precision) == (
        1,
        4,
        "cpu",
        "fp32",
    )
    training = started.training
    assert (
        training.num_targets_by_role["user"]
        == 0
        < training.num_targets_by_role["assistant"]
        < training.num_tokens
    )
    assert (started.template, started.max_length, training.num_dialogues) == ("turns", 128, 25)
    assert started.validation is not None
    assert (result.step, result.reason) == (4, "all 4 steps done")
    scores = [event for event in events if isinstance(event, EvaluationDone)]
    assert result.best_loss == min(event.loss for event in scores)
    assert all(len(event.samples) == 2 for event in scores)


def test_every_stage_is_announced_when_it_begins(finished):
    _, events = finished
    begun = {}
    for event in events:
        if isinstance(event, Progress):
            begun.setdefault(event.stage, event.done)
    assert begun.keys() == {
        "hashing the data files",
        "training the tokenizer",
        "encoding training data",
        "encoding validation data",
        "loading the model",
        "checking the model",
        "choosing dialogues for replies",
        "collecting training replies",
        "saving the first checkpoint",
        "checking the first checkpoint",
        "evaluating",
        "generating replies",
    }
    assert set(begun.values()) == {0}


def test_a_resume_announces_its_stages_too(run):
    events = []
    resume(run, None, "training.max_steps=5", emit=events.append)
    stages = dict.fromkeys(event.stage for event in events if isinstance(event, Progress))
    assert list(stages)[:4] == [
        "hashing the data files",
        "verifying the checkpoint",
        "encoding training data",
        "encoding validation data",
    ]
    assert {"loading the checkpoint", "checking the model"} <= stages.keys()


def test_the_run_directory_holds_what_it_should_and_no_leftovers(finished):
    run = RunDirectory(finished[0].run_dir)
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        ".lock",
        "best-loss.json",
        "best-metric.json",
        "checkpoints",
        "config.yaml",
        "dialogue.json",
        "last.json",
        "metrics.jsonl",
        "run.json",
        "samples.jsonl",
        "tokenizer",
        "training-dialogues.hashes",
    }
    config = load_config(run.config)
    assert all(os.path.isabs(path) for path in (*config.data.train, *config.data.validation))


def test_validation_data_that_breaks_off_later_is_refused_before_the_run_directory_exists(
    tiny_config, ignore, tmp_path
):
    """The loss needs two dialogues, the choice of replies reads them all."""
    broken = tmp_path / "valid.jsonl"
    broken.write_text('["Hi", "Hello"]\n["Bye", "Bye!"]\n["cut\n')
    config = tiny_config(data={"validation": str(broken)}, evaluation={"max_dialogues": 2})
    with pytest.raises(DataError, match=r"valid\.jsonl:3"):
        start_run(config, ignore)
    assert not (tmp_path / "runs" / "tiny").exists()


def test_a_run_that_exists_is_not_overwritten(finished, ignore):
    config = load_config(RunDirectory(finished[0].run_dir).config)
    with pytest.raises(CheckpointError, match="already exists"):
        start_run(config, ignore)


def test_a_run_that_came_into_being_while_this_one_prepared_is_not_overwritten(
    tiny_config, ignore, monkeypatch, tmp_path
):
    make = build.build_scratch_model

    def meanwhile(*arguments):
        (tmp_path / "runs" / "tiny" / "checkpoints").mkdir(parents=True)
        return make(*arguments)

    monkeypatch.setattr(build, "build_scratch_model", meanwhile)
    with pytest.raises(CheckpointError, match="tiny: already exists"):
        start_run(tiny_config(), ignore)


def test_what_is_refused_is_refused_before_the_run_directory_exists(tiny_config, ignore, tmp_path):
    with pytest.raises(ModelError, match="/nowhere/model"):
        start_run(tiny_config(model={"scratch": None, "pretrained": "/nowhere/model"}), ignore)
    assert not (tmp_path / "runs" / "tiny").exists()


@pytest.mark.parametrize(
    ("training", "notice"),
    [
        (
            {"max_steps": 2, "warmup_steps": 9},
            "but the run has 2 steps: the warm-up ends with the run",
        ),
        (
            {"max_steps": None, "epochs": 0.1, "warmup_steps": 9},
            "but the run has 1 step: the warm-up ends with the run",
        ),
        (
            {"max_steps": 2, "schedule_steps": 1, "warmup_steps": 9},
            "but training.schedule_steps is 1: the warm-up ends with the schedule",
        ),
        (
            {"max_steps": 2, "schedule_steps": 99, "warmup_steps": 9},
            "ends during the warm-up, at a learning rate of 0.0",
        ),
        ({"max_steps": 2, "warmup_steps": 2}, None),
    ],
)
def test_a_warm_up_longer_than_the_run_is_a_notice_before_step_1(tiny_config, training, notice):
    events = []
    start_run(tiny_config(training=training, data={"validation": []}), events.append)
    first = next(k for k, event in enumerate(events) if isinstance(event, StepDone))
    told = [
        event.message
        for event in events[:first]
        if isinstance(event, Notice) and "warmup_steps" in event.message
    ]
    assert len(told) == (notice is not None)
    assert not notice or (told[0].startswith("training.warmup_steps is 9, ") and notice in told[0])
    rates = [event.learning_rate for event in events if isinstance(event, StepDone)]
    if not training.get("schedule_steps"):
        assert rates[-1] == 1e-3, "the warm-up ends with the run, at the peak"


# Resume


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("output_dir=elsewhere", "output_dir"),
        ("model.scratch.layers=9", r"model\.scratch\.layers"),
        ("tokenizer.kind=bpe", r"tokenizer\.kind"),
        ("dialogue.template=chatml", r"dialogue\.template"),
        ("dialogue.max_length=64", r"dialogue\.max_length"),
        ("dialogue.long_turns=split", r"dialogue\.long_turns"),
    ],
)
def test_a_key_that_only_the_beginning_reads_cannot_be_changed_in_silence(
    run, ignore, override, key
):
    before = run.config.read_bytes()
    with pytest.raises(
        ChangedError, match=rf"^{key} is .*, but the run was started with .* \(see run\.json\)$"
    ):
        resume(run, ignore, override)
    assert run.config.read_bytes() == before


def test_changed_data_is_refused(run, ignore, tmp_path):
    config = load_config(run.config)
    (tmp_path / "other.jsonl").write_text('["Hello", "Hi!"]\n')
    with pytest.raises(ChangedError, match=r"other\.jsonl: not the data that the run began with"):
        resume(run, ignore, f"data.train={tmp_path / 'other.jsonl'}")
    assert load_config(run.config) == config


def test_changed_data_that_is_allowed_is_what_the_run_goes_on_with(run, ignore, tmp_path):
    lines = (
        pathlib.Path(load_config(run.config).data.train[0])
        .read_text(encoding="utf-8")
        .splitlines(keepends=True)
    )
    reordered = tmp_path / "reordered.jsonl"
    reordered.write_text("".join(reversed(lines)), encoding="utf-8")
    overrides = ["training.max_steps=5", f"data.train={reordered}"]
    with pytest.raises(ChangedError, match="not the data that the run began with"):
        resume(run, ignore, *overrides)
    config, notices = apply_overrides(load_config(run.config), overrides), []
    result = resume_run(run.path, "last", config, notices.append, allow_changed=True)
    assert result.step == 5
    assert any(
        isinstance(n, Notice) and n.is_warning and n.message.endswith("(--allow-changed)")
        for n in notices
    )
    assert resume(run, ignore, "training.max_steps=6").step == 6


def test_another_weight_of_a_file_is_refused_like_other_data_and_needs_no_encoding(run, ignore):
    path = load_config(run.config).data.train[0]
    heavy = f"data.train=[{{path: {path}, weight: 2.5}}]"
    with pytest.raises(ChangedError, match=r"its weight is 2\.5, but the run began with 1"):
        resume(run, ignore, "training.max_steps=5", heavy)

    def go_on(train, max_steps):
        settings = [train, f"training.max_steps={max_steps}"]
        config, events = apply_overrides(load_config(run.config), settings), []
        resume_run(run.path, "last", config, events.append, allow_changed=True)
        return events

    (started,) = [event for event in go_on(heavy, 5) if isinstance(event, RunStarted)]
    assert [(file["weight"], file["share"]) for file in started.files] == [(2.5, 1)]
    assert load_config(run.config).data.weights == (2.5,)
    notices = [event for event in go_on(f"data.train={path}", 6) if isinstance(event, Notice)]
    assert any("reusing its tokens" in notice.message for notice in notices)
    changes = [change.message for change in read_run_info(run).changes]
    assert [text[-10:] for text in changes if "weight" in text] == [": 1 -> 2.5", ": 2.5 -> 1"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("seed: 42", "seed: 43"),
        ("layers: 2", "layers: 3"),
        ("learning_rate: 0.001", "learning_rate: 0.1"),
    ],
)
def test_a_config_that_somebody_else_changed_is_refused_with_both_values(
    run, ignore, before, after
):
    text = run.config.read_text()
    assert before in text
    run.config.write_text(text.replace(before, after))
    with pytest.raises(ChangedError, match=rf"{before.split(': ')[0]}.*{after.split(': ')[1]}"):
        resume(run, ignore, "training.max_steps=5")


def test_a_comment_in_the_config_changes_nothing(run, ignore, monkeypatch, tmp_path):
    """Neither the sealed values nor the folder that data paths are relative to."""
    monkeypatch.chdir(tmp_path)
    run.config.write_text("# my best run\n" + run.config.read_text())
    assert resume(run, ignore, "training.max_steps=5").step == 5


def test_a_resume_that_was_killed_between_its_two_files_is_no_change(run, ignore):
    """config.yaml is written before run.json, and its seal says that convo wrote it."""
    info = run.info.read_bytes()
    resume(run, ignore, "training.max_steps=5")
    run.info.write_bytes(info)
    assert resume(run, ignore).step == 5


def test_another_version_is_a_warning_and_recorded_and_the_batching_is_proved_again(run, ignore):
    run.info.write_text(re.sub(r'"torch": "[^"]+"', '"torch": "1.0"', run.info.read_text()))
    notices = []
    resume(run, ignore, "training.max_steps=5", emit=notices.append)
    messages = [notice.message for notice in notices if isinstance(notice, Notice)]
    assert any(
        message.startswith("torch: the run had 1.0 and continues with ") for message in messages
    )
    assert any(
        "batching: chosen again, because the run used torch 1.0" in message for message in messages
    )
    assert {change.step for change in read_run_info(run).changes} == {4}
    again = []
    resume(run, ignore, "training.max_steps=6", emit=again.append)
    assert not any("torch" in getattr(event, "message", "") for event in again)


def test_a_moved_run_goes_on_and_keeps_absolute_data_paths_and_cleans_up(
    run, ignore, monkeypatch, tmp_path
):
    shutil.copyfile(load_config(run.config).data.train[0], tmp_path / "copy.jsonl")
    (run.path / ".tmp-last.json-1").write_text("half")
    (run.checkpoints / ".tmp-step-00000009-1").mkdir()
    monkeypatch.chdir(tmp_path)
    result = resume(run, ignore, "training.max_steps=5", "data.train=copy.jsonl")
    assert (result.step, result.run_dir) == (5, run.path)
    written = load_config(run.config)
    assert written.training.max_steps == 5
    assert written.data.train == (str(tmp_path / "copy.jsonl"),)
    assert not [path for folder in (run.path, run.checkpoints) for path in folder.glob(".tmp-*")]


def test_a_run_that_is_over_says_so_and_nothing_of_it_changes(run):
    before, events = _but_the_lock(run), []
    assert resume(run, None, emit=events.append).reason == "all 4 steps done"
    assert _but_the_lock(run) == before
    expected = "nothing to do: this run already finished (all 4 steps done)"
    assert expected in [getattr(event, "message", "") for event in events]
    assert not [event for event in events if isinstance(event, (RunStarted, RunFinished))]


def _but_the_lock(run):
    return {name: value for name, value in snapshot(run.path).items() if name != ".lock"}


def test_a_damaged_newest_checkpoint_falls_back_with_a_warning_and_is_replaced(run, ignore):
    (run.checkpoint(4) / "model.safetensors").unlink()
    notices = []
    resume(
        run, ignore, emit=lambda event: notices.append(event) if isinstance(event, Notice) else None
    )
    warnings = [notice.message for notice in notices if notice.is_warning]
    assert any("step-00000004/model.safetensors: missing" in warning for warning in warnings)
    assert (run.checkpoint(4) / "model.safetensors").is_file()


def _stop_in(stage):
    def emit(event):
        if isinstance(event, Progress) and event.stage == stage:
            os.kill(os.getpid(), signal.SIGTERM)

    return emit


@pytest.mark.parametrize("stage", ["training the tokenizer", "encoding training data"])
def test_a_signal_in_the_preparation_leaves_no_run_and_a_whole_cache(
    tiny_config, tmp_path, ignore, stage
):
    config = tiny_config(training={"max_steps": 1, "warmup_steps": 0}, data={"validation": []})
    with pytest.raises(StoppedError, match="no run was created") as caught:
        start_run(config, _stop_in(stage))
    assert caught.value.exit_code == 143
    left = (
        [path.name for path in (tmp_path / "runs").rglob("*")]
        if (tmp_path / "runs").exists()
        else []
    )
    assert not [
        name for name in left if name.startswith((".tmp-", ".convo-new-")) or name == "tiny"
    ]
    assert start_run(config, ignore).step == 1


def test_a_signal_before_the_first_step_leaves_a_run_that_goes_on_from_step_0(
    tiny_config, tmp_path, ignore
):
    def stop(event):
        if isinstance(event, RunStarted):
            verify_directory(event.run_dir / "checkpoints" / "step-00000000")
            os.kill(os.getpid(), signal.SIGINT)

    config = tiny_config(training={"max_steps": 2}, data={"validation": []})
    with pytest.raises(StoppedError, match="stopped after step 0 of 2; the run is saved"):
        start_run(config, stop)
    assert resume(RunDirectory(tmp_path / "runs" / "tiny"), ignore).step == 2


def test_a_signal_while_a_resume_prepares_leaves_the_run_as_it_is(run):
    shutil.rmtree(run.path.parent / ".convo-cache", ignore_errors=True)
    before = _but_the_lock(run)
    with pytest.raises(StoppedError, match="the run is unchanged"):
        resume(run, None, "training.max_steps=5", emit=_stop_in("encoding training data"))
    assert _but_the_lock(run) == before


def test_a_stop_file_saves_and_stops_and_is_gone(run, ignore):
    def touch(event):
        if isinstance(event, StepDone) and event.step == 5:
            run.stop.touch()

    notices = []
    result = resume(
        run, ignore, "training.max_steps=7", emit=lambda e: (touch(e), notices.append(e))
    )
    assert (result.step, result.reason) == (5, "stopped on request")
    assert any("the run is saved" in getattr(notice, "message", "") for notice in notices)
    assert not run.stop.exists()
    assert run.checkpoint(5).is_dir()
    run.stop.touch()  # from a run that was killed before it saw it
    assert resume(run, ignore).step == 7


# Other lengths and batches


def rates_of(events):
    return {event.step: event.learning_rate for event in events if isinstance(event, StepDone)}


def notices_of(events):
    return [event.message for event in events if isinstance(event, Notice)]


def test_an_extended_run_keeps_its_schedule_says_so_and_stores_it(run):
    events = []
    resume(run, None, "training.max_steps=6", emit=events.append)
    assert rates_of(events) == pytest.approx({5: 1e-4, 6: 1e-4})
    assert (
        "the run is extended from 4 to 6 steps; from step 5 on the learning rate is 0.0001 "
        "(training.schedule_steps is 4). "
        "--set training.schedule_steps=6 stretches the schedule: step 5 then has 0.00033"
    ) in notices_of(events)
    assert load_config(run.config).training.schedule_steps == 4
    events.clear()
    resume(run, None, "training.max_steps=8", emit=events.append)
    assert rates_of(events) == pytest.approx({7: 1e-4, 8: 1e-4})


@pytest.mark.parametrize(
    ("stated", "stored"),
    [("6", 6), ("null", 6), ("8", 8)],
    ids=["the new length", "null: that too", "another number"],
)
def test_a_stated_horizon_stretches_the_schedule_and_the_rate_is_told_before_and_after(
    run, stated, stored
):
    events = []
    overrides = ["training.max_steps=6", f"training.schedule_steps={stated}"]
    config = apply_overrides(load_config(run.config), overrides)
    resume_run(run.path, "last", config, events.append, keys_set={"training.schedule_steps"})
    rate = rates_of(events)[5]
    assert rate > 3e-4
    assert any(
        notice.startswith("the learning rate of step 5 changes from 0.0001 to 0.00")
        for notice in notices_of(events)
    )
    assert load_config(run.config).training.schedule_steps == stored


@pytest.mark.parametrize(
    "override",
    [
        "training.learning_rate=3e-4",
        "training.schedule=constant",
        "training.min_lr_ratio=0.5",
    ],
)
def test_another_rate_of_the_next_step_is_told_whatever_changed_it(run, override):
    events = []
    resume(run, None, "training.max_steps=6", override, emit=events.append)
    told = [
        notice for notice in notices_of(events) if notice.startswith("the learning rate of step 5 ")
    ]
    assert len(told) == 1, notices_of(events)
    assert " 5 changes from 0.0001 to " in told[0]


def test_a_resume_that_changes_nothing_says_nothing_about_the_rate(run):
    with pytest.raises(StoppedError):
        resume(run, None, "training.max_steps=6", emit=_stop_at_five)
    events, before = [], run.config.read_bytes()
    resume(run, None, emit=events.append)
    assert not [notice for notice in notices_of(events) if "rate" in notice or "extended" in notice]
    assert run.config.read_bytes() == before


def test_a_shortened_run_ends_with_its_schedule_and_the_lower_rate_is_told(
    tiny_config, ignore, tmp_path
):
    run = RunDirectory(tmp_path / "runs" / "tiny")
    config = tiny_config(training={"max_steps": 9}, data={"validation": []})
    with pytest.raises(StoppedError):
        start_run(config, _stop_at_five)
    events = []
    resume(run, None, "training.max_steps=7", emit=events.append)
    assert rates_of(events) == pytest.approx({6: 0.000232, 7: 1e-4}, rel=0.01)
    assert "the run is shortened from 9 to 7 steps" in notices_of(events)
    assert any(
        notice.startswith("the learning rate of step 6 changes") for notice in notices_of(events)
    )


def test_the_curriculum_of_an_extended_run_ends_where_it_did(tiny_config, ignore, tmp_path):
    curriculum = {"user_turns_until": 0.5}
    straight, events = [], []
    start_run(
        tiny_config(dialogue=curriculum, data={"validation": []}, name="straight"), straight.append
    )
    start_run(
        tiny_config(dialogue=curriculum, data={"validation": []}, training={"max_steps": 4}), ignore
    )
    run = RunDirectory(tmp_path / "runs" / "tiny")
    resume(run, None, "training.max_steps=6", emit=events.append)
    targets = {event.step: event.num_targets for event in events if isinstance(event, StepDone)}
    assert targets == {
        e.step: e.num_targets for e in straight if isinstance(e, StepDone) and e.step in (5, 6)
    }
    assert any(
        notice.endswith("; user turns are targets up to step 2") for notice in notices_of(events)
    )


def _stop_after_another(num_steps):
    steps = []

    def emit(event):
        if isinstance(event, StepDone):
            steps.append(event)
            if len(steps) == num_steps:
                os.kill(os.getpid(), signal.SIGTERM)

    return emit


def test_an_epoch_is_finished_exactly_whatever_the_batches_of_each_resume(
    tiny_config, ignore, tmp_path
):
    """A run of one epoch sees each token once; a damaged checkpoint changes nothing."""
    once = {"max_steps": None, "epochs": 1, "batch_size": 1}
    start_run(tiny_config(name="straight", training=once, data={"validation": []}), ignore)
    straight, run = (RunDirectory(tmp_path / "runs" / name) for name in ("straight", "tiny"))
    whole = read_state(straight.checkpoint(25)).progress.tokens_seen

    config = tiny_config(
        training={**once, "batch_size": 4}, data={"validation": []}, checkpoints={"every_steps": 1}
    )
    with pytest.raises(StoppedError):
        start_run(config, _stop_after_another(2))
    with pytest.raises(StoppedError, match=r"stopped after step 3 of 8;"):
        resume(run, ignore, "training.batch_size=3", emit=_stop_after_another(1))
    tokens = ("training.batch_size=null", "training.batch_tokens=150")
    with pytest.raises(StoppedError):
        resume(run, ignore, *tokens, emit=_stop_after_another(1))
    events = []
    resume(run, None, "training.batch_size=1", "training.batch_tokens=null", emit=events.append)
    last = run.checkpoint_steps()[-1]
    done = read_state(run.checkpoint(last)).progress
    assert [phase.batch for phase in done.phases] == [4, 3, 150, 1]
    assert done.tokens_seen == whole
    epochs = [event.epoch for event in events if isinstance(event, StepDone)]
    assert epochs[-1] == 1.0
    assert epochs == sorted(epochs)

    weights = file_sha256(run.checkpoint(last) / "model.safetensors")
    (run.checkpoint(last) / "optimizer.safetensors").write_bytes(b"")
    resume(run, ignore)
    assert file_sha256(run.checkpoint(last) / "model.safetensors") == weights
    assert read_state(run.checkpoint(last)).progress.phases == done.phases


def test_another_batch_size_with_more_epochs_is_a_longer_run(tiny_config, ignore, tmp_path):
    config = tiny_config(
        training={"max_steps": None, "epochs": 1, "batch_size": 5}, data={"validation": []}
    )
    assert start_run(config, ignore).step == 5
    run = RunDirectory(tmp_path / "runs" / "tiny")
    assert resume(run, ignore, "training.batch_size=10").reason == "all 5 steps done"
    assert resume(run, ignore, "training.batch_size=10", "training.epochs=2").step == 5 + 3
    assert resume(run, ignore, "training.epochs=null", "training.max_steps=9").step == 9


def test_an_evaluation_comes_with_the_step_that_completes_an_epoch(tiny_config, tmp_path):
    events = []
    training = {"max_steps": None, "epochs": 2, "batch_size": 4}
    start_run(tiny_config(training=training, evaluation={"every_steps": None}), events.append)
    assert [event.step for event in events if isinstance(event, EvaluationDone)] == [7, 13]
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [7, 13]


def _stop_at_five(event):
    if isinstance(event, StepDone) and event.step == 5:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_with_the_last_step_of_a_run_without_evaluations_does_not_make_it_a_stopped_one(
    tiny_config, ignore
):
    config = tiny_config(data={"validation": []}, training={"max_steps": 5})
    assert start_run(config, _stop_at_five).reason == "all 5 steps done"


def test_a_signal_before_an_evaluation_saves_at_once_and_the_resumed_run_begins_with_it(
    run, ignore
):
    """An evaluation may take longer than the sender of the signal waits."""
    seen = []

    def stop(event):
        seen.append(event)
        _stop_at_five(event)

    with pytest.raises(StoppedError, match="stopped after step 5 of 5"):
        resume(run, ignore, "training.max_steps=5", emit=stop)
    assert not any(isinstance(event, EvaluationDone) and event.step == 5 for event in seen)
    saved = snapshot(run.checkpoint(5))
    again = []
    assert resume(run, ignore, emit=again.append).reason == "all 5 steps done"
    assert [event.step for event in again if isinstance(event, EvaluationDone)] == [5]
    assert not any(isinstance(event, StepDone) for event in again)
    assert snapshot(run.checkpoint(5)) == saved, "a published checkpoint is never rewritten"


def test_a_signal_before_it_saves_and_says_how_to_go_on(run, ignore):
    def stop(event):
        if isinstance(event, StepDone) and event.step == 5:
            os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(StoppedError, match="stopped after step 5 of 6; the run is saved") as caught:
        resume(run, ignore, "training.max_steps=6", emit=stop)
    assert caught.value.exit_code == 128 + signal.SIGUSR1
    assert str(run.path) in str(caught.value.hint)
    assert run.checkpoint(5).is_dir()


def test_every_evaluation_has_a_checkpoint(tiny_config, tmp_path, ignore):
    """Also where checkpoints come at other steps than evaluations."""
    config = tiny_config(evaluation={"every_steps": 2}, checkpoints={"every_steps": 5, "keep": 9})
    result = start_run(config, ignore)
    run = RunDirectory(result.run_dir)
    assert run.checkpoint_steps() == [0, 2, 4, 5, 6]
    known = read_evaluations(run).by_step
    assert sorted(known) == [2, 4, 6]
    assert result.best_loss == min(evaluation.loss for evaluation in known.values())
    assert all(
        evaluation.weights == weights_of(run.checkpoint(step)) for step, evaluation in known.items()
    )


def _write_all(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_a_run_directory_of_an_older_version_is_refused_with_a_message(run, ignore):
    """Its state.json held the scores."""
    for step in run.checkpoint_steps():
        state = json.loads((run.checkpoint(step) / "state.json").read_text())
        state["format"], state["progress"]["scores"] = 1, None
        files = {file.name: file.read_bytes() for file in run.checkpoint(step).iterdir()}
        files["state.json"] = json.dumps(state).encode()
        del files["MANIFEST.json"]
        publish_directory(
            run.checkpoint(step),
            partial(_write_all, files),
        )
    with pytest.raises(
        CheckpointError, match=r"state\.json: format 1, but this version of convo reads format 2"
    ):
        resume(run, ignore)
    assert run.checkpoint_steps() == [2, 4]
