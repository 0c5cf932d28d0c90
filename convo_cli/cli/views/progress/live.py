"""The live view of a run on a terminal: a few redrawn lines below the permanent ones."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from convo_cli.cli.views.progress.event_lines import (
    amount_done,
    best_fields,
    cut_line,
    finish_line,
    flow,
    one_line,
    reply_lines,
    score_fields,
    show,
    show_notice,
    show_start,
    usage_fields,
)
from convo_cli.cli.views.progress.files_line import loss_fields
from convo_cli.cli.views.progress.meter import Clock, Meter, duration, short_number, sparkline
from convo_cli.events import (
    CheckpointSaved,
    DeviceMeasured,
    EvaluationDone,
    Event,
    Notice,
    Progress,
    RunFinished,
    RunStarted,
    StepDone,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType
    from rich.text import Text
    from typing_extensions import Self

_REDRAWS_PER_SECOND = 4
_MIN_BAR = 10  # columns of the progress bar, if the terminal has room for it
_CURVE_WIDTH = 60


class _Part(NamedTuple):
    """Lines of the frame about one subject."""

    rank: int
    """Parts with the highest rank are left out first on a terminal with few rows."""
    lines: Sequence[RenderableType]


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
        self._usage: DeviceMeasured | None = None
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
                self._meter.start(event)
                show_start(self._console, event)
                self._started = event
            case StepDone():
                self._stage = None
                self._meter.add(event)
                self._step = event
            case DeviceMeasured():
                self._usage = event
            case EvaluationDone():
                self._stage = None
                for line in self._score_lines():
                    show(self._console, line)
                self._meter.add_evaluation(event)
                self._evaluation = event
            case CheckpointSaved():
                self._checkpoint = event
            case RunFinished():
                self._close()
                if not event.is_stopped:
                    show(self._console, finish_line(event, self._meter.elapsed()))

    def _close(self) -> None:
        """Leave the last frame on the screen; later output goes below it."""
        self._is_open = False
        self._live.stop()

    def frame(self) -> RenderableType:
        """Draw the last events, in fewer rows than the terminal has."""
        from rich.console import Group

        parts = self._parts()
        while sum(len(part.lines) for part in parts) > max(1, self._console.height - 2):
            parts.remove(max(parts, key=lambda part: part.rank))
        lines = [line for part in parts for line in part.lines]
        # The terminal echoes ^C on the last line; on a full one it would wrap and break the view.
        return Group(*lines, *([""] if self._is_open else []))

    def _parts(self) -> list[_Part]:
        width, step, evaluation = self._console.width, self._step, self._evaluation
        parts: list[_Part] = []
        if self._started:
            parts.append(_Part(0, [self._bar(self._started, step)]))
        if step:
            numbers = [
                f"loss {self._meter.loss:.3f}",
                f"learning rate {step.learning_rate:.1e}",
                f"gradient norm {step.grad_norm:.3g}",
                f"epoch {step.epoch:.2f}",
            ]
            parts.append(_Part(1, flow("training", numbers, width)))
            if files := loss_fields(self._meter.training_files, self._meter.loss_by_file):
                parts.append(_Part(7, flow("by file", files, width)))
            parts.append(_Part(4, flow("loss curve", [self._loss_curve()], width)))
            parts.append(_Part(7, flow("speed", self._speed(step), width)))
        if self._usage and (usage := usage_fields(self._usage)):
            parts.append(_Part(8, flow("device", usage, width)))
        if evaluation:
            parts.append(_Part(2, self._score_lines()))
        if best := best_fields(self._meter.best):
            parts.append(_Part(3, flow("best so far", best, width)))
        if self._checkpoint:
            saved = f"step {self._checkpoint.step}  {one_line(str(self._checkpoint.path))}"
            parts.append(_Part(6, flow("saved", [saved], width)))
        samples = evaluation.samples[: self._show_samples] if evaluation else ()
        parts += [
            _Part(10 + number, reply_lines(sample, has_reference=False))
            for number, sample in enumerate(samples)
        ]
        if self._stage:
            parts.append(_Part(2, [_stage_bar(self._stage, self._clock() - self._stage_began)]))
        if self._started and self._is_open:
            parts.append(_Part(5, flow("to stop", ["Ctrl-C saves and stops"], width)))
        return parts

    def _score_lines(self) -> list[Text]:
        """Return the lines of the last evaluation; the best scores have lines of their own."""
        if not (event := self._evaluation):
            return []
        scores = [f"step {event.step}", *score_fields(event, (), metric=self._meter.metric)]
        files = loss_fields(self._meter.validation_files, event.loss_by_file)
        width = self._console.width
        return [*flow("validation", scores, width), *flow("by file", files, width)]

    def _bar(self, started: RunStarted, step: StepDone | None) -> RenderableType:
        done = step.step if step else started.first_step - 1
        total = step.max_steps if step else started.max_steps
        left = f"{duration(self._meter.seconds_left())} left" if step else "first step"
        more = " + evaluations" if step and self._meter.is_without_evaluations else ""
        texts = [
            f"{100 * done // max(1, total)}%",
            f"{duration(self._meter.elapsed())} elapsed",
            left + more,
        ]
        room = self._console.width - len(f"step {done}/{total}") - 2 - _MIN_BAR
        for shorter in (texts, [texts[0], texts[1], left], [texts[0], left], [left]):
            texts = shorter
            if sum(len(text) + 2 for text in texts) <= room:
                break
        return _row(f"step {done}/{total}", total, done, *texts)

    def _speed(self, step: StepDone) -> list[str]:
        speed = self._meter.flops_per_second
        peak = self._started.peak_flops if self._started else None
        share = f" ({speed / peak:.0%} of the device's peak)" if peak else ""
        speed, unit = (speed / 1e12, "TFLOP/s") if speed >= 1e12 else (speed / 1e9, "GFLOP/s")
        return [
            f"{short_number(self._meter.tokens_per_second)} tokens/s",
            f"{speed:.3g} {unit}{share}",
            f"{self._meter.share_of_waiting:.1%} waiting for data",
        ]

    def _loss_curve(self) -> str:
        losses = self._meter.losses
        if not losses:
            return "after the next steps"
        low, high = f"{min(losses):.2f}", f"{max(losses):.2f}"
        room = self._console.width - 12 - len(f"  {low} to {high}")
        return f"{sparkline(losses, min(_CURVE_WIDTH, room))}  {low} to {high}"


def _stage_bar(event: Progress, seconds: float) -> RenderableType:
    return _row(one_line(event.stage), event.total, event.done, amount_done(event, seconds))


def _row(title: str, total: int | None, done: int, *texts: str) -> RenderableType:
    """Return one line with a bar that takes the width that the texts leave."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    row = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for ratio in (None, 1, *(None for _ in texts)):
        row.add_column(no_wrap=True, ratio=ratio)
    row.add_row(cut_line(title), ProgressBar(total=total, completed=done), *map(cut_line, texts))
    return row
