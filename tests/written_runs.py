"""Run directories without a model: real logs and provenance, written from events."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from convo_cli.config.load import build_config
from convo_cli.events import (
    EvaluationDone,
    Event,
    HealthFinding,
    RunFinished,
    SampleReply,
)
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.event_log import MetricsLog
from convo_cli.runs.provenance.data_files import DataFile
from convo_cli.runs.provenance.execution import Change, Execution
from convo_cli.runs.provenance.run_info import Parent, RunInfo, write_provenance
from tests.run_events import STARTED, step

EXECUTION = Execution(
    device="cpu",
    device_name="a processor",
    precision="fp32",
    num_threads=2,
    cpu_capability="AVX2",
    environment={},
    is_packed=True,
    why_padded=None,
    has_plain_head=True,
    attention="sdpa",
)
VALUES: dict[str, Any] = {
    "name": "written",
    "data": {"train": ["train.jsonl"], "validation": ["valid.jsonl"]},
    "model": {"scratch": {"layers": 2, "width": 64, "heads": 2}},
    "training": {"max_steps": 300},
}


def run_info(values: dict[str, Any] | None = None, **fields: Any) -> RunInfo:
    """Return run.json of a run with these values in its config."""
    return RunInfo(
        convo="0.1.0",
        python="3.11",
        packages={"torch": "2.13.0"},
        execution=EXECUTION,
        git=None,
        base_model=None,
        train=(DataFile(path="../train.jsonl", sha256="a" * 64, num_lines=11_118),),
        validation=(DataFile(path="../valid.jsonl", sha256="b" * 64, num_lines=852),),
        config=build_config(values or VALUES, "a test"),
        max_steps=300,
        **fields,
    )


def write_run(path: Path, events: Iterable[Event], info: RunInfo | None = None) -> RunDirectory:
    """Write a run directory without checkpoints from its events."""
    run = RunDirectory(path)
    run.checkpoints.mkdir(parents=True)
    write_provenance(run, info or run_info())
    log = MetricsLog(run.metrics, run.samples)
    for event in events:
        log(event)
    log.close()
    return run


def scored(
    number: int, loss: float, *, bleu: float = 2.0, samples: tuple[SampleReply, ...] = ()
) -> EvaluationDone:
    """Return an evaluation with everything that an evaluation may have."""
    return EvaluationDone(
        number,
        loss,
        math.exp(loss),
        9_000,
        2.0,
        {"bleu-4": bleu, "bleu-2": 2 * bleu, "distinct-1": 0.5},
        samples,
        intervals={"bleu-4": (0.8 * bleu, 1.2 * bleu)},
        floors={
            name: {"bleu-4": value, "bleu-2": 2 * value, "distinct-1": 0.1}
            for name, value in (("constant", 0.4), ("echo", 2.2), ("random", 0.5))
        },
        real_scores={"distinct-1": 0.6},
        end_nll=0.5,
        inner_nll=loss,
    )


def sample(index: int, reply: str, *, stopped: bool = True) -> SampleReply:
    history = (("user", "hello"), ("assistant", "hi"), ("user", f"how are you, {index}?"))
    return SampleReply(history, f"fine, thank you, {index}", reply, stopped)


def healthy(num_steps: int = 300, every: int = 50, name: str = "") -> list[Event]:
    """Return the events of a run whose loss falls to the end."""
    events: list[Event] = [replace(STARTED, max_steps=num_steps)]
    for number in range(1, num_steps + 1):
        loss = 2 + 6 * math.exp(-6 * number / num_steps) + 0.1 * math.sin(number)
        events.append(replace(step(number, loss=loss), grad_norm=1 + (number % 7) / 7))
        if number % every == 0:
            replies = tuple(sample(index, f"reply {number} {name}") for index in range(4))
            at = 2.2 + 5 * math.exp(-5 * number / num_steps)
            events.append(scored(number, at, bleu=1.5 + number / num_steps, samples=replies))
    events.append(RunFinished(num_steps, f"all {num_steps} steps done"))
    return events


def with_finding(event: EvaluationDone, kind: str, message: str) -> EvaluationDone:
    return replace(event, findings=(*event.findings, HealthFinding(kind, message)))


def changed(info: RunInfo, step: int, message: str) -> RunInfo:
    """Return run.json of a fork that was resumed with a change."""
    parent = Parent(run_id="f" * 32, name="first", step=step)
    return info.model_copy(
        update={"parent": parent, "changes": (Change(step=step, message=message),)}
    )
