"""metrics.jsonl of a run as columns of numbers and lists of events, also if it is old or damaged.

Logs of earlier versions lack keys, and damaged logs may hold anything. Unexpected values are
skipped, and damaged lines are counted.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from convo_cli.runs.logs.evaluations import read_records

_NAME = re.compile(r"[A-Za-z][\w.+-]{0,39}", re.ASCII)
_MAX_NAMES = 40
_MAX_LISTED = 200
"""Most starts, warnings and damaged lines that are kept; the others are counted."""
_MAX_STEP = 10**12
LAST_STEPS = 100
"""Steps whose records are kept whole, for means over the end of a run."""

STEP_NUMBERS = (
    "loss",
    "learning_rate",
    "grad_norm",
    "num_tokens",
    "tokens_seen",
    "seconds",
    "epoch",
)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation, without the values that its record lacks."""

    step: int
    loss: float | None
    perplexity: float | None
    metrics: Mapping[str, float]
    real_scores: Mapping[str, float]
    """Scores of the real replies, for the metrics that are best at that value."""
    intervals: Mapping[str, tuple[float, float]]
    floors: Mapping[str, Mapping[str, float]]
    end_nll: float | None
    inner_nll: float | None
    findings: tuple[tuple[str, str], ...]
    """Kind and message of each finding."""
    has_health: bool
    """False if the record was written before convo looked for findings."""
    loss_by_file: Sequence[float | None] = ()

    def scores_of(self, floor: str) -> Mapping[str, float]:
        """Return the scores of a floor, of the ``real`` replies, or of the model if empty."""
        if floor == "real":
            return self.real_scores
        return self.floors.get(floor, {}) if floor else self.metrics


@dataclass(slots=True)
class RunLog:
    """The content of a metrics log."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    numbers: dict[str, array[float]] = field(
        default_factory=lambda: {name: array("d") for name in STEP_NUMBERS}
    )
    """A value for each of ``steps``; NaN where the record has none."""
    evaluations: dict[int, Evaluation] = field(default_factory=dict)
    """The last record of each step, ascending."""
    starts: list[Mapping[str, Any]] = field(default_factory=list)
    """Records of ``run_started``."""
    warnings: list[tuple[int, str]] = field(default_factory=list)
    num_warnings: int = 0
    finished: Mapping[str, Any] | None = None
    """The record of ``run_finished`` of the last start; None if it has none."""
    last_steps: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=LAST_STEPS))
    """The last records of ``step``."""
    last_time: str = ""
    damaged: list[int] = field(default_factory=list)
    """The first lines that are not JSON objects with a step, from 1."""
    num_damaged: int = 0

    @property
    def last_step(self) -> int:
        """Return the last step or evaluation in the log; 0 if there is none."""
        return max([0, *self.steps[-1:], *list(self.evaluations)[-1:]])

    @property
    def tokens_seen(self) -> int:
        return int(next((one for one in reversed(self.numbers["tokens_seen"]) if one == one), 0))

    @property
    def epochs(self) -> float:
        return next((one for one in reversed(self.numbers["epoch"]) if one == one), 0.0)

    @property
    def seconds(self) -> float:
        """Return the wall time of all steps, in seconds."""
        return math.fsum(one for one in self.numbers["seconds"] if one == one)

    def curve(self, name: str) -> list[tuple[float, float]]:
        """Return (step, value) for every step with this number."""
        pairs = zip(self.steps, self.numbers[name], strict=True)
        return [(step, value) for step, value in pairs if value == value]

    def evaluated(self, name: Literal["loss", "end_nll", "inner_nll"]) -> list[tuple[float, float]]:
        """Return (step, value) for every evaluation with this number."""
        pairs = ((step, getattr(one, name)) for step, one in self.evaluations.items())
        return [(step, value) for step, value in pairs if value is not None]

    def scores(self, metric: str, floor: str = "") -> list[tuple[float, float]]:
        """Return (step, value) for every evaluation with this score, of the model or of a floor.

        The floor ``real`` stands for the real replies.
        """
        pairs = ((step, one.scores_of(floor).get(metric)) for step, one in self.evaluations.items())
        return [(step, value) for step, value in pairs if value is not None]

    def speed(self) -> list[tuple[float, float]]:
        """Return (step, tokens per second) for every step with both numbers."""
        tokens, seconds = self.numbers["num_tokens"], self.numbers["seconds"]
        return [
            (step, count / time)
            for step, count, time in zip(self.steps, tokens, seconds, strict=True)
            if count == count and time > 0
        ]

    def up_to(self, step: int) -> RunLog:
        """Return the log up to and including ``step``."""
        end = sum(1 for one in self.steps if one <= step)
        return RunLog(
            steps=self.steps[:end],
            numbers={name: values[:end] for name, values in self.numbers.items()},
            evaluations={at: one for at, one in self.evaluations.items() if at <= step},
            starts=[start for start in self.starts if int(start["step"]) <= step],
        )


def read_log(path: Path) -> RunLog:
    """Read a metrics log; an unfinished last line is not damage, and a missing log is empty.

    DiskError if it is not a regular file.
    """
    log = RunLog()
    for line, record in enumerate(read_records(path), 1):
        step = None if record is None else record.get("step")
        if record is None or type(step) is not int or not 0 <= step <= _MAX_STEP:
            log.num_damaged += 1
            log.damaged += [line] if len(log.damaged) < _MAX_LISTED else []
            continue
        _add(log, record, step)
        if isinstance(record.get("time"), str):
            log.last_time = record["time"]
    log.evaluations = dict(sorted(log.evaluations.items()))
    return log


def _add(log: RunLog, record: Mapping[str, Any], step: int) -> None:
    match record.get("event"):
        case "step":
            if log.steps and step <= log.steps[-1]:
                _cut(log, step)
            log.steps.append(step)
            log.last_steps.append(record)
            for name, values in log.numbers.items():
                value = number_of(record.get(name))
                values.append(math.nan if value is None else value)
        case "evaluation":
            log.evaluations[step] = _evaluation(record, step)
        case "run_started":
            log.finished = None
            if len(log.starts) < _MAX_LISTED:
                log.starts.append(record)
        case "run_finished":
            log.finished = record
        case "warning":
            log.num_warnings += 1
            if len(log.warnings) < _MAX_LISTED:
                log.warnings.append((step, str(record.get("message"))))


def _cut(log: RunLog, step: int) -> None:
    """Drop the steps from ``step`` on, which are written again."""
    while log.steps and log.steps[-1] >= step:
        log.steps.pop()
        if log.last_steps:
            log.last_steps.pop()
        for values in log.numbers.values():
            values.pop()


def _evaluation(record: Mapping[str, Any], step: int) -> Evaluation:
    floors = record.get("floors")
    findings, losses = record.get("findings"), record.get("loss_by_file")
    return Evaluation(
        step=step,
        loss=number_of(record.get("loss")),
        perplexity=number_of(record.get("perplexity")),
        metrics=numbers_of(record.get("metrics")),
        real_scores=numbers_of(record.get("real_scores")),
        intervals=intervals_of(record.get("intervals")),
        floors={
            name: numbers_of(scores)
            for name, scores in (floors.items() if isinstance(floors, Mapping) else ())
            if _NAME.fullmatch(name)
        },
        end_nll=number_of(record.get("end_nll")),
        inner_nll=number_of(record.get("inner_nll")),
        loss_by_file=[number_of(loss) for loss in losses] if isinstance(losses, list) else [],
        findings=tuple(
            (str(one.get("kind")), str(one.get("message")))
            for one in (findings if isinstance(findings, list) else ())[:_MAX_NAMES]
            if isinstance(one, Mapping)
        ),
        has_health=isinstance(findings, list),
    )


def number_of(value: Any) -> float | None:
    """Return a finite number of a record; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e300 else None


def numbers_of(values: Any) -> dict[str, float]:
    """Return the finite numbers of an object, under names that are short and plain."""
    if not isinstance(values, Mapping):
        return {}
    found = {name: number_of(value) for name, value in values.items() if _NAME.fullmatch(name)}
    known = [(name, value) for name, value in found.items() if value is not None]
    return dict(known[:_MAX_NAMES])


def intervals_of(values: Any) -> dict[str, tuple[float, float]]:
    """Return the pairs of finite numbers of an object, under names that are short and plain."""
    found: dict[str, tuple[float, float]] = {}
    for name, bounds in values.items() if isinstance(values, Mapping) else ():
        if _NAME.fullmatch(name) and isinstance(bounds, list) and len(bounds) == 2:
            low, high = map(number_of, bounds)
            if low is not None and high is not None and len(found) < _MAX_NAMES:
                found[name] = (low, high)
    return found
