"""metrics.jsonl and samples.jsonl: the events of a run, one JSON object per line.

Every record begins with ``event``, ``time`` (UTC) and ``step``, the number of finished updates, so
that a resumed run keeps exactly the records up to its checkpoint. Numbers that are not finite are
written as null.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

import jsonlines
import msgspec

from convo_cli.events import (
    CheckpointSaved,
    DeviceMeasured,
    EvaluationDone,
    Event,
    Notice,
    RunFinished,
    RunStarted,
    SampleReply,
    StepDone,
)
from convo_cli.runs.logs.evaluations import evaluation_record, finite, read_records
from convo_cli.storage.atomic import disk_errors, sync_directory, sync_file
from convo_cli.storage.files import only_regular, read_lines, require_one_name
from convo_cli.unseen import escape_unseen

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def _as_json(record: Mapping[str, Any]) -> str:
    return escape_unseen(_JSON.encode(record))


class MetricsLog:
    """A reporter that appends events to ``metrics`` and sample replies to ``samples``.

    Records after step ``after_step`` are first dropped from both files, and so are those of an
    evaluation at that step unless it ``is_evaluated``. Each line is passed to the system at once,
    so both files can be read during training; an evaluation is on the disk when the call returns.
    """

    def __init__(
        self, metrics: Path, samples: Path, *, after_step: int = 0, is_evaluated: bool = True
    ) -> None:
        self._step = after_step
        truncate_after(metrics, after_step, is_evaluated=is_evaluated)
        truncate_after(samples, after_step, is_evaluated=is_evaluated)
        self._metrics = _Lines(metrics)
        self._samples = _Lines(samples)
        with disk_errors(metrics):
            sync_directory(metrics.parent)

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self._step = event.step
        if isinstance(event, EvaluationDone):
            # The record of an evaluation comes last, so if it exists, its samples are complete.
            for index, sample in enumerate(event.samples):
                self._samples.write(_sample_record(event.step, index, sample))
            self._samples.sync()
        if record := _record(event, self._step):
            self._metrics.write(record)
        if isinstance(event, EvaluationDone):
            self._metrics.sync()

    def close(self) -> None:
        try:
            self._metrics.close()
        finally:
            self._samples.close()


class _Lines:
    """A JSON Lines file that is open for appending."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with disk_errors(path):
            # A path in a warning may hold undecodable bytes; the log must be strict UTF-8.
            self._file = open(  # noqa: SIM115  # `close` closes it
                path, "a", encoding="utf-8", errors="replace", newline="\n", opener=only_regular
            )
        self._writer = jsonlines.Writer(self._file, dumps=_as_json, flush=True)

    def write(self, record: Mapping[str, Any]) -> None:
        event, *rest = finite(record).items()
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        with disk_errors(self._path):
            self._writer.write(dict([event, ("time", now), *rest]))

    def sync(self) -> None:
        with disk_errors(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._writer.close()
        with disk_errors(self._path):
            self._file.close()


def _record(event: Event, step: int) -> dict[str, Any] | None:
    """Return the record of an event for metrics.jsonl; None for events that are not logged."""
    match event:
        case RunStarted():
            return {
                "event": "run_started",
                "step": event.first_step - 1,
                "max_steps": event.max_steps,
                "steps_per_epoch": event.steps_per_epoch,
                "device": event.device,
                "precision": event.precision,
                "num_processes": event.num_processes,
                "micro_batch_size": event.micro_batch_size,
                "num_threads": event.num_threads,
                "num_parameters": event.num_parameters,
                "peak_flops": event.peak_flops,
                "template": event.template,
                "max_length": event.max_length,
                # Without paths, which run.json has: a run directory may be moved.
                "files": [{k: v for k, v in file.items() if k != "path"} for file in event.files],
                "training": asdict(event.training),
                "validation": None if event.validation is None else asdict(event.validation),
                "test": None if event.test is None else asdict(event.test),
            }
        case StepDone():
            return {
                "event": "step",
                "step": event.step,
                "epoch": event.epoch,
                "loss": event.loss,
                "learning_rate": event.learning_rate,
                "grad_norm": event.grad_norm,
                "num_tokens": event.num_tokens,
                "num_targets": event.num_targets,
                "tokens_seen": event.tokens_seen,
                "seconds": event.seconds,
                "waiting_seconds": event.waiting_seconds,
                "flops": event.flops,
                "loss_by_file": list(event.loss_by_file),
                "num_targets_by_file": list(event.num_targets_by_file),
            }
        case DeviceMeasured():
            return {"event": "device", **asdict(event)}
        case EvaluationDone():
            return evaluation_record(event)
        case CheckpointSaved():
            # Only the name, because a run directory may be moved.
            return {"event": "checkpoint", "step": event.step, "name": event.path.name}
        case RunFinished():
            return {"event": "run_finished", "step": event.step, "reason": event.reason}
        case Notice(is_warning=True):
            return {"event": "warning", "step": step, "message": event.message}
        case _:
            return None


def _sample_record(step: int, index: int, sample: SampleReply) -> dict[str, Any]:
    return {
        "event": "sample",
        "step": step,
        "index": index,
        "history": [{"role": role, "content": text} for role, text in sample.history],
        "reference": sample.reference,
        "other_references": list(sample.other_references),
        "reply": sample.reply,
        "stopped": sample.stopped,
    }


class _Head(msgspec.Struct):
    step: int
    event: str = ""


def truncate_after(path: Path, step: int, *, is_evaluated: bool = True) -> None:
    """Cut a log in place before its first record of a later step.

    Unless the step ``is_evaluated``, the cut is before its evaluation. An unfinished last line is
    dropped, a damaged line before the cut is kept, and a missing file is fine.
    """
    with (
        disk_errors(path),
        suppress(FileNotFoundError),
        open(path, "r+b", opener=only_regular) as file,
    ):
        file.truncate(sum(map(len, _until(file, step, is_evaluated))))


def copy_log(log: Path, to: Path, *, after_step: int, is_evaluated: bool) -> None:
    """Copy a log up to the cut of `truncate_after`, and wait until it is on the disk.

    A missing log is fine.
    """
    with (
        disk_errors(log),
        suppress(FileNotFoundError),
        open(log, "rb", opener=only_regular) as file,
    ):
        require_one_name(file)
        with disk_errors(to), open(to, "xb", opener=only_regular) as copy:
            copy.writelines(_until(file, after_step, is_evaluated))
        sync_file(to)


def _until(file: BinaryIO, step: int, is_evaluated: bool) -> Iterator[bytes]:
    """Yield the finished lines of a log up to the first one after a step."""
    decoder = msgspec.json.Decoder(_Head)
    for line in read_lines(file):
        if not line.endswith(b"\n") or _is_after(decoder, line, step, is_evaluated):
            return
        yield line


def _is_after(
    decoder: msgspec.json.Decoder[_Head], line: bytes, step: int, is_evaluated: bool
) -> bool:
    try:
        head = decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return head.step > step or (
        head.step == step and not is_evaluated and head.event in ("evaluation", "sample")
    )


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a log without lines that are damaged or still being written."""
    return (record for record in read_records(path) if record is not None)
