"""The live view of a run on a terminal: a few redrawn lines at the bottom, with permanent lines
scrolling above.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from convo_cli.cli.views.progress.event_lines import (
    amount_done,
    checkpoint_line,
    cut_line,
    finish_line,
    numbers_of_step,
    one_line,
    reply_lines,
    score_lines,
    show,
    show_notice,
    show_start,
)
from convo_cli.cli.views.progress.meter import Clock, Meter, duration, sparkline
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
    from rich.console import Console, RenderableType
    from rich.text import Text
    from typing_extensions import Self

_REDRAWS_PER_SECOND = 4


class LiveProgress:
    """A reporter that keeps the last event of each kind and draws them as one frame."""

    def __init__(
        self, console: Console, *, show_samples: int, clock: Clock = time.monotonic
    ) -> None:
        from rich.live import Live

        self._console = console
        self._show_samples = show_samples
        self._clock = clock
        self._meter = Meter(clock)
        # Another thread draws while events arrive, so these are replaced, never changed in place.
        self._stage: Progress | None = None
        self._stage_began = 0.0
        self._started: RunStarted | None = None
        self._step: StepDone | None = None
        self._evaluation: EvaluationDone | None = None
        self._checkpoint: CheckpointSaved | None = None
        self._is_open = False
        # Live leaves stdout alone: stdout carries the result, and may be a pipe.
        self._live = Live(
            console=console,
            get_renderable=self.frame,
            refresh_per_second=_REDRAWS_PER_SECOND,
            redirect_stdout=False,
        )

    def __enter__(self) -> Self:
        self._is_open = True
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stage = None
        self._close()

    def __call__(self, event: Event) -> None:
        match event:
            case Notice():
                show_notice(self._console, event)
            case Progress():
                if self._stage is None or self._stage.stage != event.stage:
                    self._stage_began = self._clock()
                self._stage = None if event.done == event.total else event
            case RunStarted():
                self._stage = None
                self._meter.start()
                self._started = event
                show_start(self._console, event)
            case StepDone():
                self._stage = None
                self._meter.add(event)
                self._step = event
            case EvaluationDone():
                self._stage = None
                if self._evaluation:
                    show(self._console, score_lines(self._evaluation, self._console.width))
                self._evaluation = event
            case CheckpointSaved():
                self._checkpoint = event
            case RunFinished():
                self._close()
                show(self._console, finish_line(event, self._meter.elapsed()))

    def _close(self) -> None:
        """Leave the last frame on the screen; later output goes below it."""
        self._is_open = False
        self._live.stop()

    def frame(self) -> RenderableType:
        """Draw the last events: at most 15 lines with three samples on 80 columns."""
        from rich.console import Group

        parts: list[RenderableType] = []
        step, evaluation, checkpoint, stage = (
            self._step,
            self._evaluation,
            self._checkpoint,
            self._stage,
        )
        if self._started:
            parts.append(self._bar(self._started, step))
        if step:
            speed = self._meter.tokens_per_second
            parts.append(
                cut_line(
                    f"{numbers_of_step(step, self._meter.loss, speed)}  epoch {step.epoch:.2f}"
                )
            )
            parts.append(self._loss_curve())
            if self._console.height > 12:
                parts.append(cut_line(self._cost(step)))
        if evaluation:
            parts.append(cut_line(score_lines(evaluation, self._console.width)))
        if checkpoint:
            parts.append(cut_line(checkpoint_line(checkpoint)))
        if evaluation:
            room = (self._console.height - 10) // 2
            for sample in evaluation.samples[: max(0, min(self._show_samples, room))]:
                parts.extend(reply_lines(sample, has_reference=False))
        if stage:
            parts.append(_stage_bar(stage, self._clock() - self._stage_began))
        if self._is_open:
            parts.append(
                ""
            )  # the terminal echoes ^C here; on a full line it would wrap and break the view
        return Group(*parts)

    def _bar(self, started: RunStarted, step: StepDone | None) -> RenderableType:
        from rich.progress_bar import ProgressBar

        done = step.step if step else started.first_step - 1
        total = step.max_steps if step else started.max_steps
        left = f"{duration(self._meter.seconds_left())} left" if step else "first step"
        return _row(
            f"step {done}/{total}",
            ProgressBar(total=total, completed=done),
            f"{100 * done // max(1, total)}%",
            duration(self._meter.elapsed()),
            left,
        )

    def _cost(self, step: StepDone) -> str:
        speed = self._meter.flops_per_second
        peak = self._started.peak_flops if self._started else None
        share = f" ({speed / peak:.0%} of the device's peak)" if peak else ""
        speed, unit = (speed / 1e12, "TFLOP/s") if speed >= 1e12 else (speed / 1e9, "GFLOP/s")
        memory = f"{step.memory_bytes / 2**30:.1f} GiB"
        return f"{speed:.3g} {unit}{share}  {memory}  waiting {self._meter.share_of_waiting:.1%}"

    def _loss_curve(self) -> Text:
        losses = self._meter.losses
        span = f"  {min(losses):.2f} to {max(losses):.2f}" if losses else ""
        return cut_line(sparkline(losses, min(60, self._console.width - len(span))) + span)


def _stage_bar(event: Progress, seconds: float) -> RenderableType:
    from rich.progress_bar import ProgressBar

    bar = ProgressBar(total=event.total, completed=event.done)
    return _row(one_line(event.stage), bar, amount_done(event, seconds))


def _row(*cells: RenderableType) -> RenderableType:
    """Return the cells in one line; the bar takes the width that the texts leave."""
    from rich.table import Table

    row = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for cell in cells:
        row.add_column(no_wrap=True, ratio=None if isinstance(cell, str) else 1)
    row.add_row(*(cut_line(cell) if isinstance(cell, str) else cell for cell in cells))
    return row
