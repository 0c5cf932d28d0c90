"""Plain lines for a log or a pipe: events, and the progress of a long stage every few seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convo_cli.cli.views.progress.event_lines import (
    checkpoint_line,
    finish_line,
    reply_lines,
    score_line,
    show,
    show_notice,
    show_start,
    stage_line,
    step_fields,
)
from convo_cli.cli.views.progress.files_line import loss_fields
from convo_cli.cli.views.progress.meter import Clock, Meter, duration
from convo_cli.events import (
    CheckpointSaved,
    EvaluationDone,
    Event,
    Notice,
    Progress,
    RunFinished,
    RunStarted,
    StepDone,
)

if TYPE_CHECKING:
    from rich.console import Console

_REPLY_WIDTH = 120  # columns
_STAGE_SECONDS = 5.0
"""Minimum time between two lines about the same stage."""


class PlainProgress:
    """A reporter that prints the beginning of every stage, evaluations, checkpoints and steps.

    Of the steps it prints the first, every ``log_every``-th and the last.
    """

    def __init__(
        self, console: Console, *, log_every: int, show_samples: int, clock: Clock = time.monotonic
    ) -> None:
        self._console = console
        self._log_every = log_every
        self._show_samples = show_samples
        self._clock = clock
        self._meter = Meter(clock)
        self._stage = ""
        self._stage_began = self._stage_shown = 0.0
        self._is_first_step = True
        self._unshown: StepDone | None = None

    def __call__(self, event: Event) -> None:
        if not isinstance(event, (Notice, Progress)):
            self._stage = ""  # the next stage is a new one, even under the same name
        match event:
            case Notice():
                show_notice(self._console, event)
            case Progress():
                self._show_stage(event)
            case RunStarted():
                self._meter.start(event)
                show_start(self._console, event)
            case StepDone():
                self._show_step(event)
            case EvaluationDone():
                self._meter.add_evaluation(event)
                show(self._console, score_line(event, self._meter.best, metric=self._meter.metric))
                files = loss_fields(self._meter.validation_files, event.loss_by_file)
                self._show_files(f"eval step {event.step}  loss", files)
                for sample in event.samples[: self._show_samples]:
                    for line in reply_lines(sample, has_reference=True):
                        line.truncate(_REPLY_WIDTH, overflow="ellipsis")
                        show(self._console, line)
            case CheckpointSaved():
                show(self._console, checkpoint_line(event))
            case RunFinished():
                if self._unshown:
                    self._show_numbers(self._unshown)
                if not event.is_stopped:
                    show(self._console, finish_line(event, self._meter.elapsed()))

    def _show_stage(self, event: Progress) -> None:
        now = self._clock()
        if event.stage != self._stage:
            self._stage, self._stage_began = event.stage, now
        elif now - self._stage_shown < _STAGE_SECONDS:
            return
        self._stage_shown = now
        show(self._console, stage_line(event, now - self._stage_began))

    def _show_step(self, event: StepDone) -> None:
        self._meter.add(event)
        is_due = (
            self._is_first_step
            or event.step % self._log_every == 0
            or event.step == event.max_steps
        )
        self._is_first_step = False
        self._unshown = None if is_due else event
        if is_due:
            self._show_numbers(event)

    def _show_numbers(self, event: StepDone) -> None:
        show(self._console, self._step_line(event))
        # A single step may have few targets of a file.
        files = loss_fields(self._meter.training_files, self._meter.loss_by_file)
        self._show_files(f"step {event.step}/{event.max_steps}  mean loss", files)

    def _show_files(self, what: str, fields: Sequence[str]) -> None:
        if fields:
            show(self._console, "  ".join([f"{what} by file", *fields]))

    def _step_line(self, event: StepDone) -> str:
        left = duration(self._meter.seconds_left())
        more = " + evaluations" if self._meter.is_without_evaluations else ""
        numbers = step_fields(event, event.loss, self._meter.tokens_per_second)
        return "  ".join([f"step {event.step}/{event.max_steps}", *numbers, f"eta {left}{more}"])
