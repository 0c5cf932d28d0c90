"""An evaluation that fails in any way loses no checkpoint, and a resume repeats only it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from convo_cli.config.load import load_config
from convo_cli.errors import DiskError, OutOfMemoryError
from convo_cli.evaluation import evaluator
from convo_cli.events import CheckpointSaved, EvaluationDone, Notice, StepDone
from convo_cli.model.decoding.generator import Generator
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs import event_log
from convo_cli.runs.logs.event_log import read_metrics
from convo_cli.storage.sealed import file_sha256, verify_directory
from convo_cli.training.run import resume_run, start_run

VOLATILE = {"time", "seconds", "waiting_seconds"}


def outcome(run):
    """Weights, optimizer and every logged value that is no measure of time."""
    weights = [
        file_sha256(run.checkpoint(6) / name)
        for name in ("model.safetensors", "optimizer.safetensors")
    ]
    records = [*read_metrics(run.metrics), *read_metrics(run.samples)]
    kept = [one for one in records if one["event"] in ("step", "evaluation", "sample")]
    return weights, [
        {key: value for key, value in one.items() if key not in VOLATILE} for one in kept
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, make_config):
    return outcome(
        RunDirectory(
            start_run(make_config(tmp_path_factory.mktemp("whole")), lambda event: None).run_dir
        )
    )


def raising(error):
    def fail(*arguments, **options):
        raise error

    return fail


def no_space_for_samples(self, record, write=event_log._Lines.write):
    if record["event"] == "sample":
        raise DiskError("samples.jsonl: No space left on device")
    write(self, record)


FAILURES = {
    "in the likelihood": (
        evaluator,
        "nll_by_groupings",
        raising(RuntimeError("CUDA error: an illegal memory access")),
    ),
    "out of memory in the likelihood": (
        evaluator,
        "nll_by_groupings",
        raising(torch.OutOfMemoryError("CUDA out of memory.")),
    ),
    "in a reply": (Generator, "answer", raising(ValueError("a bug"))),
    "in the scoring": (evaluator, "scores_of", raising(ZeroDivisionError("division by zero"))),
    "when samples are written": (event_log._Lines, "write", no_space_for_samples),
    "by Ctrl-C without a handler": (evaluator, "scores_of", raising(KeyboardInterrupt())),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_an_evaluation_that_fails_loses_no_step_and_is_repeated_alone(
    tiny_config, tmp_path, ignore, monkeypatch, undisturbed, failure
):
    owner, name, fake = FAILURES[failure]
    run = RunDirectory(tmp_path / "runs" / "tiny")
    with monkeypatch.context() as broken:
        broken.setattr(owner, name, fake)
        with pytest.raises(BaseException) as caught:  # noqa: PT011  (any failure)
            start_run(tiny_config(), ignore)
        assert not isinstance(caught.value, AssertionError)
    assert run.checkpoint_steps() == [0, 3]
    verify_directory(run.checkpoint(3))
    saved = file_sha256(run.checkpoint(3) / "MANIFEST.json")

    events = []
    resume_run(run.path, "last", load_config(run.config), events.append)
    done = [
        event for event in events if isinstance(event, (EvaluationDone, StepDone, CheckpointSaved))
    ]
    assert [(type(event).__name__, event.step) for event in done] == [
        ("EvaluationDone", 3), ("StepDone", 4), ("StepDone", 5), ("StepDone", 6),
        ("CheckpointSaved", 6), ("EvaluationDone", 6),
    ]  # fmt: skip
    assert file_sha256(run.checkpoint(3) / "MANIFEST.json") == saved, (
        "a published checkpoint is never rewritten"
    )
    assert outcome(run) == undisturbed


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_for_replies_skips_them_with_a_warning(
    tiny_config, ignore, monkeypatch, error
):
    """The weights, the losses and what is saved are those of a run with replies."""
    with monkeypatch.context() as broken:
        broken.setattr(Generator, "answer", raising(error))
        warnings = []
        result = start_run(
            tiny_config(checkpoints={"keep": 9}),
            lambda event: (
                warnings.append(event.message)
                if isinstance(event, Notice) and event.is_warning
                else None
            ),
        )
    run = RunDirectory(result.run_dir)
    assert (result.step, result.best_metric, run.checkpoint_steps()) == (6, None, [0, 3, 6])
    expected = (
        f"not enough memory to generate replies ({type(error).__name__}), so this "
        "evaluation has no metrics; "
    )
    assert [message.startswith(expected) for message in warnings if "memory" in message] == [
        True,
        True,
    ]
    logged = [one for one in read_metrics(run.metrics) if one["event"] in ("evaluation", "warning")]
    assert [one["metrics"] for one in logged if one["event"] == "evaluation"] == [{}, {}]
    assert len(logged) == 4
    assert Path(run.pointer("best-loss")).exists()
    assert not run.pointer("best-metric").exists()


def test_early_stopping_by_a_metric_neither_counts_nor_forgets_an_evaluation_without_one(
    tiny_config, ignore, monkeypatch
):
    """With patience 2, no improvement, and evaluations 2 and 3 without replies, it ends at 5."""
    reply, num_evaluations = evaluator.reply_to_all, []

    def sometimes(*arguments):
        num_evaluations.append(1)
        if len(num_evaluations) in (2, 3):
            raise OutOfMemoryError("MemoryError")
        return reply(*arguments)

    monkeypatch.setattr(evaluator, "reply_to_all", sometimes)
    monkeypatch.setattr(
        evaluator, "scores_of", lambda measured: {"bleu-4": 1.0} if measured else {}
    )
    stopping = {"patience": 2, "monitor": "metric"}
    result = start_run(
        tiny_config(evaluation={"every_steps": 1, "early_stopping": stopping}), ignore
    )
    assert (result.step, result.reason) == (5, "bleu-4 did not improve in 2 evaluations")
