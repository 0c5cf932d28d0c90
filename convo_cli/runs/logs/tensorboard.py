"""TensorBoard events of a run, written without TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from convo_cli.events import (
    CheckpointSaved,
    DeviceMeasured,
    EvaluationDone,
    Event,
    SampleReply,
    StepDone,
)
from convo_cli.storage.atomic import disk_errors
from convo_cli.storage.folder import Folder, open_folder
from convo_cli.unseen import escape_unseen

_FLUSH_SECONDS = 15.0
_SCHEME = "convo"
_LARGEST = 3.4e38  # event files hold float32


class TensorBoardLog:
    """A reporter that writes an event file into ``folder``.

    TensorBoard hides the events of earlier files after step ``after_step``. ``config`` is shown as
    a text.
    """

    def __init__(self, folder: Path, *, after_step: int = 0, config: str = "") -> None:
        # Not tensorboardX's SummaryWriter: it passes events to a thread, and after a full disk ends
        # that thread (tensorboardX 2.6.5), the next add_scalar waits forever. The writer below it
        # fails in the call itself.
        from tensorboardX.proto.event_pb2 import Event as Record
        from tensorboardX.proto.event_pb2 import SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import RecordWriter, register_writer_factory
        from tensorboardX.summary import text

        self._path = folder / f"events.out.tfevents.{time.time_ns()}"
        self._record, self._summary, self._text = Record, Summary, text
        self._next_flush = 0.0
        with disk_errors(self._path):
            folder.mkdir(parents=True, exist_ok=True)
            with open_folder(folder, below=folder.parent) as inside:
                register_writer_factory(_SCHEME, _Opener(inside))
                self._writer = RecordWriter(f"{_SCHEME}:{self._path.name}")
        self._write(0, file_version="brain.Event:2")
        if after_step > 0:
            self._write(after_step + 1, session_log=SessionLog(status=SessionLog.START))
        if config:
            self._write_text(after_step, "config", config)

    def __call__(self, event: Event) -> None:
        match event:
            case StepDone():
                self._write_scalars(event.step, _step_scalars(event))
            case DeviceMeasured():
                self._write_scalars(event.step, _usage_scalars(event))
            case EvaluationDone():
                self._write_scalars(event.step, _evaluation_scalars(event))
                for index, sample in enumerate(event.samples):
                    self._write_text(event.step, f"samples/{index:02d}", _dialogue(sample))
                if event.findings:
                    found = (f"{one.kind}: {one.message}" for one in event.findings)
                    self._write_text(event.step, "findings", "\n".join(found))
            case _:
                pass
        if (
            isinstance(event, (EvaluationDone, CheckpointSaved))
            or time.monotonic() >= self._next_flush
        ):
            with disk_errors(self._path):
                self._writer.flush()
            self._next_flush = time.monotonic() + _FLUSH_SECONDS

    def close(self) -> None:
        with disk_errors(self._path):
            self._writer.close()

    def _write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        finite = {tag: value for tag, value in scalars.items() if abs(value) < _LARGEST}
        values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in finite.items()]
        self._write(step, summary=self._summary(value=values))

    def _write_text(self, step: int, tag: str, text: str) -> None:
        self._write(step, summary=self._text(tag, _as_code_block(text)))

    def _write(self, step: int, **content: object) -> None:
        with disk_errors(self._path):
            record = self._record(step=step, wall_time=time.time(), **content)
            self._writer.write(record.SerializeToString())


class _Opener:
    """Opener of paths that begin with `convo:`; unlike tensorboardX's own, it follows no links."""

    def __init__(self, inside: Folder) -> None:
        self._inside = inside

    def open(self, path: str) -> BinaryIO:
        return self._inside.open(path.removeprefix(f"{_SCHEME}:"), "xb")


def _usage_scalars(event: DeviceMeasured) -> dict[str, float]:
    """Return the values that are available, under their names in metrics.jsonl."""
    values = {f"device/{name}": value for name, value in asdict(event).items() if name != "step"}
    gpu = values.pop("device/gpu") or {}
    values |= {f"gpu/{name}": value for name, value in gpu.items()}
    return {tag: float(value) for tag, value in values.items() if value is not None}


def _step_scalars(event: StepDone) -> dict[str, float]:
    """Return the numbers of a step under their names in metrics.jsonl, and the speed."""
    numbers: dict[str, float] = {
        name: value
        for name, value in asdict(event).items()
        if name not in ("step", "max_steps", "loss_by_file", "num_targets_by_file")
    }
    numbers |= _losses(event.loss_by_file)
    if event.seconds > 0:
        numbers["tokens_per_second"] = event.num_tokens / event.seconds
    return {f"train/{name}": value for name, value in numbers.items()}


def _losses(by_file: Sequence[float | None]) -> dict[str, float]:
    return {f"loss/file_{file}": loss for file, loss in enumerate(by_file) if loss is not None}


def _evaluation_scalars(event: EvaluationDone) -> dict[str, float]:
    """Return the scores, the bounds of their intervals, and the scores of the floors."""
    numbers = {"loss": event.loss, "perplexity": event.perplexity, **event.metrics}
    numbers |= {"num_targets": event.num_targets, "seconds": event.seconds}
    for name, value in (("end_nll", event.end_nll), ("inner_nll", event.inner_nll)):
        if value is not None:
            numbers[name] = value
    numbers |= _losses(event.loss_by_file)
    for name, (low, high) in event.intervals.items():
        numbers |= {f"{name}/low": low, f"{name}/high": high}
    for floor, scores in {**event.floors, "real": event.real_scores}.items():
        numbers |= {f"{name}/{floor}": value for name, value in scores.items()}
    return {f"validation/{name}": value for name, value in numbers.items()}


def _dialogue(sample: SampleReply) -> str:
    ending = "" if sample.stopped else "  [token limit]"
    turns = [*sample.history, ("reply", sample.reply + ending), ("reference", sample.reference)]
    return "\n".join(f"{role}: {content}" for role, content in turns)


def _as_code_block(text: str) -> str:
    """Return a text as indented lines, which TensorBoard's Markdown leaves as they are."""
    return "\n".join("    " + line for line in escape_unseen(text).splitlines())
