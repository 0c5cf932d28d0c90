"""Comparison of the same steps computed in two ways: tensors by SHA-256, logged values exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from convo_cli.events import Emit, EvaluationDone, Event, StepDone
from convo_cli.model.adapters.lora import saved_tensors
from convo_cli.model.batches.loss import Batch
from convo_cli.model.tensor_files import tensor_files
from convo_cli.runs.checkpoints import read_state
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.event_log import read_metrics
from convo_cli.storage.files import require_regular
from convo_cli.training.saving import optimizer_tensors
from convo_cli.training.state import TrainState

_NOT_COMPARED = {
    "time",
    "seconds",
    "waiting_seconds",
    "memory_bytes",  # of a step, in the logs of earlier versions
    "max_steps",
    "elapsed_seconds",
    "best",
    "findings",
    "weights",
    "checksum",
    # The parts of a loss that is compared; earlier versions log none.
    "loss_by_file",
    "num_targets_by_file",
}
"""Measurements, the length of the run, and references to other evaluations and files."""


@dataclass(frozen=True, slots=True)
class Check:
    """The comparison of one kind of value: how many were compared, and the first difference."""

    what: str
    count: int
    difference: str | None


@dataclass
class Trace:
    """The results of some steps by name, as hashes: only one model is in memory at a time."""

    examples: dict[str, str] = field(default_factory=dict)
    logged: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)

    def finish(self, state: TrainState) -> None:
        """Record the state after the last step."""
        tensors = saved_tensors(state.model)
        self.weights = {name: _digest(tensor) for name, tensor in tensors.items()}
        self.optimizer = _moments(
            (name, _digest(tensor)) for name, tensor in optimizer_tensors(state).items()
        )
        self.logged["progress at the end"] = _compared(state.progress.model_dump())
        self.logged["gradient scale"] = state.scaler.get_scale()

    def listening(self, emit: Emit) -> Emit:
        """Return a reporter that records steps and evaluations and passes every event on."""

        def listen(event: Event) -> None:
            emit(event)
            if isinstance(event, (StepDone, EvaluationDone)):
                self.logged[f"{type(event).__name__} {event.step}"] = _compared(asdict(event))

        return listen

    def take_batches(
        self, step: int, examples: NDArray[np.int64], batches: Sequence[Batch]
    ) -> None:
        """Record the examples of a step and the tensors that the model reads."""
        contents = [
            _digest(tensor)
            for batch in batches
            for tensor in (batch.input_ids, batch.predictors, batch.labels)
        ]
        self.examples[f"step {step + 1}"] = f"{examples.tolist()} {contents}"


def saved_trace(run: RunDirectory, first: int, last: int) -> Trace:
    """Read the results of the steps after ``first``, up to ``last``, from the files of the run."""
    checkpoint, trace = run.checkpoint(last), Trace()
    trace.weights = dict(_tensors(tensor_files(checkpoint, "model")))
    trace.optimizer = _moments(_tensors(tensor_files(checkpoint, "optimizer")))
    trace.logged["gradient scale"] = read_state(checkpoint).scaler
    for file in (run.metrics, run.samples):
        for record in read_metrics(file):
            step = record.get("step")
            if (
                record.get("event") in ("step", "evaluation", "sample")
                and isinstance(step, int)
                and first < step <= last
            ):
                index = f" number {record['index']}" if "index" in record else ""
                trace.logged[f"{record['event']} {step}{index}"] = _compared(record)
    return trace


def compare(one: Trace, other: Trace, *, ways: tuple[str, str]) -> tuple[Check, ...]:
    """Compare each kind of value by name; messages call the origins of the two values ``ways``."""
    kinds = (
        ("examples of a step", one.examples, other.examples),
        ("logged values", one.logged, other.logged),
        ("optimizer tensors", one.optimizer, other.optimizer),
        ("weight tensors", one.weights, other.weights),
    )
    return tuple(
        Check(what, len(a.keys() | b.keys()), _difference(a, b, ways))
        for what, a, b in kinds
        if a or b
    )


def _difference(
    one: Mapping[str, Any], other: Mapping[str, Any], ways: tuple[str, str]
) -> str | None:
    names = (*one, *(name for name in other if name not in one))
    different = next((name for name in names if one.get(name) != other.get(name)), None)
    if different is None:
        return None
    a, b = one.get(different), other.get(different)
    if not isinstance(a, dict) or not isinstance(b, dict):
        return f"{different} is not the same {ways[0]} and {ways[1]}"
    key = next(key for key in {**a, **b} if a.get(key) != b.get(key))
    return f"{different}: {key} is {a.get(key)} {ways[0]}, {b.get(key)} {ways[1]}"


def _compared(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _NOT_COMPARED}


def _moments(digests: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the digests of AdamW's moments by readable names: ``exp_avg of ln_f.weight``."""
    split = ((name.rpartition("|"), digest) for name, digest in digests)
    return {f"{kind} of {parameter}": digest for (parameter, _, kind), digest in split}


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(
        tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data
    ).hexdigest()


def _tensors(files: list[Path]) -> Iterator[tuple[str, str]]:
    for file in files:
        require_regular(file)
        with safe_open(file, framework="pt") as opened:
            yield from ((name, _digest(opened.get_tensor(name))) for name in opened.keys())  # noqa: SIM118
