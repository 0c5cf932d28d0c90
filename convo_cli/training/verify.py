"""The proof that resuming a run changes nothing, on the user's own run, data and device.

From the newest checkpoint some steps are taken straight, and once more with a save and a resume between them. Weights,
moments of the optimizer, examples and logged values have to come out the same, bit for bit.
"""

from __future__ import annotations

import hashlib
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convo_cli.config.schema import RunConfig
from convo_cli.events import EvaluationDone, Event, Progress, Report, StepDone
from convo_cli.model.loss import Batch
from convo_cli.runs.atomic import make_directory
from convo_cli.runs.checkpoint import find_checkpoint
from convo_cli.runs.layout import RunDirectory, existing_run
from convo_cli.runs.lock import locked
from convo_cli.runs.opening import open_checkpoint
from convo_cli.runs.provenance import read_data_files, read_run_info
from convo_cli.training.build import build_from
from convo_cli.training.cache import Cache
from convo_cli.training.checkpoint import save_checkpoint
from convo_cli.training.loop import EarlyStopping, train
from convo_cli.training.plan import Parts, examples_at, make_plan
from convo_cli.training.run import accept_changes, require_same_config
from convo_cli.training.signals import StopRequest, listening
from convo_cli.training.state import TrainState

_NOT_COMPARED = {"seconds", "waiting_seconds", "memory_bytes", "max_steps", "elapsed_seconds", "weights"}
"""Measurements, how far the proof goes, and the hash of weights that only the resumed stretch saves."""


@dataclass(frozen=True, slots=True)
class Check:
    """One kind of thing that was compared, how many of it, and the first that is not the same."""

    what: str
    count: int
    difference: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the proof found."""

    checkpoint: str
    num_steps: int
    resumed_after: int
    """Steps before the save and the resume."""
    checks: tuple[Check, ...]

    @property
    def difference(self) -> str | None:
        """The first one; None where everything is equal."""
        return next((check.difference for check in self.checks if check.difference), None)


@dataclass
class _Trace:
    """What a stretch of a run did, by name; tensors by their SHA-256, so that one model is in memory at a time."""

    examples: dict[str, str] = field(default_factory=dict)
    logged: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)

    def finish(self, state: TrainState) -> None:
        names = {id(parameter): name for name, parameter in state.model.named_parameters()}
        self.weights = {name: _digest(tensor) for name, tensor in state.model.state_dict().items()}
        self.optimizer = {
            f"{kind} of {names[id(parameter)]}": _digest(torch.as_tensor(value))
            for parameter, moments in state.optimizer.state.items()
            for kind, value in moments.items()
        }
        self.logged["progress at the end"] = _compared(state.progress.model_dump())
        self.logged["gradient scale"] = state.scaler.get_scale()


def verify_run(
    run_dir: Path, config: RunConfig, report: Report, *, num_steps: int, allow_changed: bool = False
) -> Verdict:
    """Compare ``num_steps`` (at least 2) from the newest whole checkpoint with and without a resume halfway.

    The run stays as it is. Raises what `convo_cli.training.run.resume_run` raises.
    """
    run = existing_run(run_dir)
    stopped = "stopped before there was a verdict; the run is as it was"
    again = f"convo resume {shlex.quote(str(run.path))} --verify"
    with (
        listening() as stop,
        stop.interrupting(stopped, hint=again),
        locked(run),
        tempfile.TemporaryDirectory(prefix="convo-verify-") as folder,
    ):
        info = read_run_info(run)
        require_same_config(info.config, config)
        files = read_data_files(config.data)
        accept_changes(run, info, files, report, allow_changed=allow_changed)
        opened = open_checkpoint(run.path, report)
        checkpoint = opened.path
        cache = Cache(run.path.resolve().parent, report)
        aside = RunDirectory(Path(folder))
        make_directory(aside.checkpoints)

        def build(path: Path, is_heard: bool) -> tuple[Parts, TrainState]:
            parts, state = build_from(path, config, files, cache, report if is_heard else _mute)
            state.is_evaluated = (
                True  # the evaluation of these weights is no step, and is counted before they are saved
            )
            return parts, state

        parts, state = build(checkpoint, True)
        first = state.progress.step
        half, last = first + num_steps // 2, first + num_steps
        straight = _Trace()
        _advance(straight, aside, parts, state, last, stop, _counted(report, "straight", first, num_steps))
        straight.finish(state)

        parts, state = build(checkpoint, False)
        opened.require_unchanged()
        resumed, count = _Trace(), _counted(report, "with a resume", first, num_steps)
        _advance(resumed, aside, parts, state, half, stop, count)
        save_checkpoint(aside, state, parts.encoder, spiece=parts.spiece, report=_mute)
        del parts, state
        parts, state = build(find_checkpoint(aside, "last", config.evaluation.metric).path, False)
        _advance(resumed, aside, parts, state, last, stop, count)
        resumed.finish(state)
    checks = (
        _check("examples of a step", straight.examples, resumed.examples),
        _check("logged values", straight.logged, resumed.logged),
        _check("optimizer tensors", straight.optimizer, resumed.optimizer),
        _check("weight tensors", straight.weights, resumed.weights),
    )
    return Verdict(checkpoint.name, num_steps, half - first, checks)


def _advance(
    trace: _Trace, run: RunDirectory, parts: Parts, state: TrainState, until: int, stop: StopRequest, count: Report
) -> None:
    """Let the run's own loop go to a step, without saving, and write down what it does."""

    def listen(event: Event) -> None:
        count(event)
        if isinstance(event, (StepDone, EvaluationDone)):
            trace.logged[f"{type(event).__name__} {event.step}"] = _compared(asdict(event))

    plan, chosen_at = make_plan(run, parts, stop, listen), examples_at(parts)

    def micro_batches(step: int) -> list[Batch]:
        batches = list(plan.micro_batches(step))
        contents = [
            _digest(tensor) for batch in batches for tensor in (batch.input_ids, batch.predictors, batch.labels)
        ]
        trace.examples[f"step {step + 1}"] = f"{chosen_at(step).tolist()} {contents}"
        return batches

    train(
        state,
        replace(
            plan, max_steps=until, micro_batches=micro_batches, early_stopping=EarlyStopping(None, False, 0.0),
            is_save_due=lambda step: False, save=lambda state: None, is_stop_requested=lambda: False,
        ),
        listen,
    )  # fmt: skip


def _counted(report: Report, stage: str, first: int, num_steps: int) -> Report:
    def count(event: Event) -> None:
        if isinstance(event, StepDone):
            report(Progress(stage, event.step - first, num_steps))
        elif isinstance(event, Progress):
            report(event)

    return count


def _check(what: str, straight: Mapping[str, Any], resumed: Mapping[str, Any]) -> Check:
    names = [*straight, *(name for name in resumed if name not in straight)]
    different = next((name for name in names if straight.get(name) != resumed.get(name)), None)
    if different is None:
        return Check(what, len(names), None)
    pair = straight.get(different), resumed.get(different)
    if isinstance(pair[0], dict) and isinstance(pair[1], dict):
        key = next(key for key in pair[0] if pair[0][key] != pair[1].get(key))
        return Check(
            what, len(names), f"{different}: {key} is {pair[0][key]} straight, {pair[1].get(key)} after a resume"
        )
    return Check(what, len(names), f"{different} is not the same after a resume")


def _compared(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _NOT_COMPARED}


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data).hexdigest()


def _mute(event: Event) -> None:
    pass
