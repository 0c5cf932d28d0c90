"""Job of a replay: the steps of a run up to one of them, without checkpoints."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from convo_cli.events import Emit, Event, Progress, StepDone
from convo_cli.runs.directory import RunDirectory
from convo_cli.signals import StopRequest
from convo_cli.training.job import RunJob
from convo_cli.training.loop import StepPlan
from convo_cli.training.resume.compare import Trace
from convo_cli.training.run_parts import Parts
from convo_cli.training.state import TrainState


class ReplayJob(RunJob):
    """Take the steps and evaluations of the run up to a step; save nothing, never stop early."""

    def __init__(
        self,
        aside: RunDirectory,
        parts: Parts,
        until: int,
        stop: StopRequest,
        listen: Emit,
        trace: Trace | None,
    ) -> None:
        super().__init__(aside, parts, stop, listen)
        self.max_steps, self.early_stopping = until, replace(self.early_stopping, patience=None)
        self._trace = trace

    def plan(self, step: int) -> StepPlan:
        plan = super().plan(step)
        if self._trace is not None:
            self._trace.take_batches(step, self._parts.order.examples(step), plan.batches)
        return plan

    def is_due(self, what: Literal["evaluation", "checkpoint"], step: int) -> bool:
        return what == "evaluation" and super().is_due(what, step)

    def save(self, state: TrainState) -> None:
        pass

    def is_stopped(self) -> bool:
        return False  # a signal interrupts the steps at once


def counted(emit: Emit, stage: str, first: int, num_steps: int) -> Emit:
    def count(event: Event) -> None:
        if isinstance(event, StepDone):
            emit(Progress(stage, event.step - first, num_steps, "steps"))
        elif isinstance(event, Progress):
            emit(event)

    return count
