"""Evaluations of a run: records of metrics.jsonl with a checksum and the hash of the weights.

A published checkpoint is never rewritten, so it does not contain the scores of its weights. No
manifest covers the log, so each record names its weights by their hashes in the checkpoint's
manifest and has a checksum of its values. best-loss.json and best-metric.json hold a copy of the
records of the best checkpoints.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import inf, isfinite
from operator import index
from pathlib import Path
from typing import Any, Literal

import msgspec

from convo_cli.errors import CheckpointError
from convo_cli.events import BestScore, EvaluationDone, HealthFinding
from convo_cli.metrics.metric_table import goodness
from convo_cli.runs.checkpoints import Progress
from convo_cli.runs.directory import RunDirectory
from convo_cli.storage.atomic import disk_errors
from convo_cli.storage.files import only_regular, read_file, read_lines
from convo_cli.storage.sealed import read_manifest

_NOT_SEALED = {"time", "seconds", "checksum"}
_HEX_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Evaluations:
    """The intact evaluations of a run, and the places of damaged records."""

    by_step: dict[int, EvaluationDone]
    damaged: tuple[str, ...]
    """Places of lines that are not as convo wrote them, such as ``metrics.jsonl:17``."""

    def goodness(self, name: str, score: float) -> float:
        """Return a number that is higher for a better loss or metric of this run."""
        # All evaluations of a run score the same turns, so the real replies are the same too.
        real = next((one.real_scores for one in self.by_step.values() if one.real_scores), {})
        found = goodness(name, score, real)
        return -inf if found is None else found


def read_evaluations(run: RunDirectory) -> Evaluations:
    """Read the last intact record of each step.

    An unfinished last line is not damage: a kill leaves one.
    """
    found: dict[int, EvaluationDone] = {}
    damaged: list[str] = []
    for label in ("best-loss", "best-metric"):
        for copy in _of_pointer(run.pointer(label)):
            # A record with other weights is that of a discarded checkpoint.
            if copy.weights == weights_of(run.checkpoint(copy.step)):
                found[copy.step] = copy
    for number, record in enumerate(read_records(run.metrics), 1):
        if record is None:
            damaged.append(f"{run.metrics}:{number}")
        elif record.get("event") == "evaluation" or "checksum" in record:
            if evaluation := evaluation_of(record):
                found[evaluation.step] = evaluation
            else:
                damaged.append(f"{run.metrics}:{number}")
    return Evaluations(found, tuple(damaged))


def read_records(log: Path) -> Iterator[dict[str, Any] | None]:
    """Yield each finished line of a log, None for a line that is not a JSON object.

    A missing log has no lines.
    """
    decoder = msgspec.json.Decoder(dict[str, Any])
    with (
        disk_errors(log),
        suppress(FileNotFoundError),
        open(log, "rb", opener=only_regular) as file,
    ):
        for line in read_lines(file):
            if line.endswith(b"\n"):
                try:
                    yield decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    yield None


def evaluation_record(event: EvaluationDone) -> dict[str, Any]:
    """Return the record of an evaluation for metrics.jsonl, without the time."""
    record = finite(
        {
            "event": "evaluation",
            "step": event.step,
            "loss": event.loss,
            "perplexity": event.perplexity,
            "num_targets": event.num_targets,
            "metrics": dict(event.metrics),
            "real_scores": dict(event.real_scores),
            "intervals": {name: list(bounds) for name, bounds in event.intervals.items()},
            "floors": {name: dict(scores) for name, scores in event.floors.items()},
            "end_nll": event.end_nll,
            "inner_nll": event.inner_nll,
            "loss_by_file": list(event.loss_by_file),
            "findings": [asdict(finding) for finding in event.findings],
            "best": list(event.best),
            "weights": event.weights,
            "seconds": event.seconds,
        }
    )
    return {**record, "checksum": _checksum(record)}


def evaluation_of(record: Mapping[str, Any]) -> EvaluationDone | None:
    """Return the evaluation of a record, without its samples; None if the record was changed."""
    if record.get("checksum") != _checksum(record):
        return None
    try:
        intervals = record.get("intervals", {}).items()
        return EvaluationDone(
            step=index(record["step"]),
            loss=float(record["loss"]),
            perplexity=record["perplexity"],
            num_targets=record["num_targets"],
            seconds=record["seconds"],
            metrics=_numbers(record["metrics"]),
            real_scores=_numbers(record.get("real_scores", {})),
            best=tuple(record["best"]),
            weights=record["weights"],
            intervals={k: (float(a), float(b)) for k, (a, b) in intervals},
            floors={k: _numbers(scores) for k, scores in record.get("floors", {}).items()},
            end_nll=record.get("end_nll"),
            inner_nll=record.get("inner_nll"),
            loss_by_file=tuple(record.get("loss_by_file", ())),
            findings=tuple(HealthFinding(**finding) for finding in record.get("findings", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None}


def score_of(evaluation: EvaluationDone, name: str) -> float | None:
    """Return the loss or the value of a metric; None if the evaluation lacks it."""
    return evaluation.loss if name == "loss" else evaluation.metrics.get(name)


def goodness_of(evaluation: EvaluationDone, name: str) -> float | None:
    """Return a number that is higher for better scores; None if the evaluation lacks the score."""
    score = score_of(evaluation, name)
    return None if score is None else goodness(name, score, evaluation.real_scores)


def best_scores(evaluations: Iterable[EvaluationDone], metric: str) -> tuple[BestScore, ...]:
    """Return the best loss and the best value of the metric; the earlier step of equals."""
    by_step = sorted(evaluations, key=lambda evaluation: evaluation.step)
    best = (_best_by(name, by_step) for name in ("loss", metric))
    return tuple(score for score in best if score is not None)


def _best_by(name: str, by_step: Iterable[EvaluationDone]) -> BestScore | None:
    best, highest = None, -inf
    for one in by_step:
        score, found = score_of(one, name), goodness_of(one, name)
        if score is not None and found is not None and (best is None or found > highest):
            best, highest = BestScore(name, score, one.step), found
    return best


def better_scores(
    evaluations: Iterable[EvaluationDone], metric: str, step: int
) -> tuple[BestScore, ...]:
    """Return the best scores that are better than those of a step."""
    evaluations = list(evaluations)
    own = [one for one in evaluations if one.step == step]
    values = {"loss": own[0].loss, **own[0].metrics} if own else {}
    return tuple(
        score
        for score in best_scores(evaluations, metric)
        if score.step != step and values.get(score.name) != score.value
    )


def best_known(
    newest: Progress, known: Evaluations, which: Literal["loss", "metric"], metric: str
) -> float | None:
    """Return the best score from before the newest checkpoint was saved, or of a later step.

    A checkpoint is saved before it is evaluated, so one of a later step is missing.
    """
    later = [one for one in known.by_step.values() if one.step > newest.step]
    if which == "loss":
        scores = [newest.best_loss, *(one.loss for one in later)]
    else:
        scores = [newest.best_metrics.get(metric), *(one.metrics.get(metric) for one in later)]
    name = "loss" if which == "loss" else metric
    return max(
        (score for score in scores if score is not None),
        key=lambda score: known.goodness(name, score),
        default=None,
    )


def weights_of(checkpoint: Path) -> str:
    """Return a hash of the weights from the checkpoint's manifest; empty if it is not readable."""
    try:
        manifest = read_manifest(checkpoint)
    except CheckpointError:
        return ""
    files = sorted(
        (name, digest)
        for name, (_, digest) in manifest.items()
        if Path(name).match("*model*.safetensors")  # also of an adapter
    )
    return _short_hash(files) if files else ""


def finite(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with null for every number that JSON cannot represent."""
    values = dict(record)
    for key, value in record.items():
        if isinstance(value, Mapping):
            values[key] = finite(value)
        elif isinstance(value, float) and not isfinite(value):
            values[key] = None
    return values


def _checksum(record: Mapping[str, Any]) -> str:
    return _short_hash({key: value for key, value in record.items() if key not in _NOT_SEALED})


def _short_hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_HEX_DIGITS]


def _of_pointer(file: Path) -> Iterator[EvaluationDone]:
    """Yield the intact evaluations in a pointer: of its checkpoint, and of the next best ones."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pointer = json.loads(read_file(file))
        for one in (pointer, *pointer.get("next_best", ())):
            if isinstance(one["evaluation"], dict) and (found := evaluation_of(one["evaluation"])):
                yield found
