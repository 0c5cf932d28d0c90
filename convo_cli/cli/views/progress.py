"""What `train` and the other long commands show on stderr: a live view on a terminal, plain lines everywhere else.

Both are reporters of the same events. Text that comes from data, models or paths goes through `printable` and is
printed as `rich.text.Text`, so nothing in it is markup or a control sequence.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from convo_cli.cli.console import printable, shortened
from convo_cli.cli.views.meter import Clock, Meter, duration, short_number, sparkline
from convo_cli.events import (
    CheckpointSaved,
    Emit,
    EvaluationDone,
    Event,
    Notice,
    Progress,
    RunFinished,
    RunStarted,
    SampleReply,
    StepDone,
    TokenCounts,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text
    from typing_extensions import Self

    from convo_cli.prepare.preview import Preview

_LABEL_WIDTH = 12
_PLAIN_WIDTH = 120
_STAGE_SECONDS = 5.0
"""Least time between two plain lines about the same stage."""


@contextmanager
def make_progress(
    console: Console, *, is_quiet: bool, log_every: int, show_samples: int, clock: Clock = time.monotonic
) -> Iterator[Emit]:
    """Yield the reporter that suits the console, which is to be stderr's; a quiet one shows warnings only."""
    if is_quiet:
        yield partial(_show_warning, console)
    elif _is_watched(console):
        with LiveProgress(console, show_samples=show_samples, clock=clock) as live:
            yield live
    else:
        yield PlainProgress(console, log_every=log_every, show_samples=show_samples, clock=clock)


def _is_watched(console: Console) -> bool:
    """Whether this is a terminal that can redraw lines; FORCE_COLOR does not make one of a pipe."""
    return (
        console.file.isatty()
        and console.is_interactive
        and not console.no_color
        and console.encoding.startswith("utf")
        and not os.environ.get("CI")
    )


class PlainProgress:
    """Lines for a log: a step every ``log_every``, every evaluation with its replies, every checkpoint."""

    def __init__(self, console: Console, *, log_every: int, show_samples: int, clock: Clock = time.monotonic) -> None:
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
        match event:
            case Notice():
                _show_notice(self._console, event)
            case Progress():
                self._show_stage(event)
            case RunStarted():
                self._meter.start()
                _show_facts(self._console, event)
            case StepDone():
                self._stage = ""
                self._show_step(event)
            case EvaluationDone():
                _show(self._console, _scores(event))
                for sample in event.samples[: self._show_samples]:
                    for line in _sample_lines(sample, has_reference=True):
                        line.truncate(_PLAIN_WIDTH, overflow="ellipsis")
                        _show(self._console, line)
            case CheckpointSaved():
                _show(self._console, _saved(event))
            case RunFinished():
                if self._unshown:
                    _show(self._console, self._step_line(self._unshown))
                _show(self._console, _finished(event, self._meter.elapsed()))

    def _show_stage(self, event: Progress) -> None:
        now = self._clock()
        if event.stage != self._stage:
            self._stage, self._stage_began, self._stage_shown = event.stage, now, now
        elif now - self._stage_shown >= _STAGE_SECONDS:
            self._stage_shown = now
            amount = _amount(event, now - self._stage_began)
            _show(self._console, f"{_one_line(event.stage)} {amount}".rstrip())

    def _show_step(self, event: StepDone) -> None:
        self._meter.add(event)
        is_due = self._is_first_step or event.step % self._log_every == 0 or event.step == event.max_steps
        self._is_first_step = False
        self._unshown = None if is_due else event
        if is_due:
            _show(self._console, self._step_line(event))

    def _step_line(self, event: StepDone) -> str:
        numbers = _numbers(event, event.loss, self._meter.tokens_per_second)
        return f"step {event.step}/{event.max_steps}  {numbers}  eta {duration(self._meter.seconds_left())}"


class LiveProgress:
    """A few lines at the bottom of the terminal, redrawn four times a second; lasting lines scroll by above them."""

    def __init__(self, console: Console, *, show_samples: int, clock: Clock = time.monotonic) -> None:
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
        # stdout is left alone: it carries the result, and may be a pipe.
        self._live = Live(console=console, get_renderable=self.frame, refresh_per_second=4, redirect_stdout=False)

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
                _show_notice(self._console, event)
            case Progress():
                if self._stage is None or self._stage.stage != event.stage:
                    self._stage_began = self._clock()
                self._stage = None if event.done == event.total else event
            case RunStarted():
                self._stage = None
                self._meter.start()
                self._started = event
                _show_facts(self._console, event)
            case StepDone():
                self._stage = None
                self._meter.add(event)
                self._step = event
            case EvaluationDone():
                self._stage = None
                if self._evaluation:
                    _show(self._console, _scores(self._evaluation, self._console.width))
                self._evaluation = event
            case CheckpointSaved():
                self._checkpoint = event
            case RunFinished():
                self._close()
                _show(self._console, _finished(event, self._meter.elapsed()))

    def _close(self) -> None:
        """Leave the last frame on the screen and write below it from now on."""
        self._is_open = False
        self._live.stop()

    def frame(self) -> RenderableType:
        """Draw what is known now: at most 15 lines with three samples on 80 columns."""
        from rich.console import Group

        parts: list[RenderableType] = []
        step, evaluation, checkpoint, stage = self._step, self._evaluation, self._checkpoint, self._stage
        if self._started:
            parts.append(self._bar(self._started, step))
        if step:
            speed = self._meter.tokens_per_second
            parts.append(_line(f"{_numbers(step, self._meter.loss, speed)}  epoch {step.epoch:.2f}"))
            parts.append(self._course())
            if self._console.height > 12:
                parts.append(_line(self._cost(step)))
        if evaluation:
            parts.append(_line(_scores(evaluation, self._console.width)))
        if checkpoint:
            parts.append(_line(_saved(checkpoint)))
        if evaluation:
            room = (self._console.height - 10) // 2
            for sample in evaluation.samples[: max(0, min(self._show_samples, room))]:
                parts.extend(_sample_lines(sample, has_reference=False))
        if stage:
            parts.append(_stage_bar(stage, self._clock() - self._stage_began))
        if self._is_open:
            parts.append("")  # where the terminal echoes ^C, which would wrap and tear a full line
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

    def _course(self) -> Text:
        losses = self._meter.losses
        span = f"  {min(losses):.2f} to {max(losses):.2f}" if losses else ""
        return _line(sparkline(losses, min(60, self._console.width - len(span))) + span)


def _show(console: Console, line: str | Text, style: str = "") -> None:
    from rich.text import Text

    console.print(Text(line, style=style) if isinstance(line, str) else line, soft_wrap=True)


def _show_notice(console: Console, event: Notice) -> None:
    message = printable(shortened(event.message))
    _show(console, f"warning: {message}" if event.is_warning else message, "yellow" if event.is_warning else "")


def _show_warning(console: Console, event: Event) -> None:
    if isinstance(event, Notice) and event.is_warning:
        _show_notice(console, event)


def _show_facts(console: Console, event: RunStarted) -> None:
    facts = {
        "run": _one_line(str(event.run_dir)),
        "device": f"{_one_line(event.device)}, {event.precision}",
        "parameters": f"{event.num_parameters:,}",
        "steps": f"{event.first_step:,} to {event.max_steps:,}, {event.steps_per_epoch:,} per epoch",
    }
    for label, value in facts.items():
        _show(console, _labelled(label, value))
    show_counts(console, event)


def show_counts(console: Console, event: RunStarted | Preview) -> None:
    """The table of the pre-flight: numbers of dialogues, tokens and targets."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(f"template: {event.template}")
    sets = [event.training]
    table.add_column("training", justify="right")
    if event.validation is not None:
        sets.append(event.validation)
        table.add_column("validation", justify="right")

    def add_row(label: str, value: Callable[[TokenCounts], str]) -> None:
        table.add_row(label, *map(value, sets))

    add_row("dialogues", lambda counts: f"{counts.num_dialogues:,}")
    add_row("tokens of a dialogue", lambda counts: f"median {counts.median_tokens:,.0f}, max {counts.max_tokens:,}")
    add_row(f"over max_length {event.max_length:,}", _over_length)
    if any(counts.num_split for counts in sets):
        add_row("split for a long turn", lambda counts: _of_dialogues(counts.num_split, counts))
    if any(counts.num_left_out for counts in sets):
        add_row("left out for a long turn", lambda counts: f"{counts.num_left_out:,}")
    add_row("examples", lambda counts: f"{counts.num_examples:,}")
    add_row("tokens", lambda counts: f"{counts.num_tokens:,}")
    for role in ("assistant", "user"):
        if any(counts.num_targets_by_role[role] for counts in sets):
            add_row(f"{role} targets", partial(_targets, role))
    console.print(table)


def _over_length(counts: TokenCounts) -> str:
    return f"{_of_dialogues(counts.num_over_length, counts)}, in windows" if counts.num_over_length else "0"


def _of_dialogues(number: int, counts: TokenCounts) -> str:
    return f"{number:,} ({_share(number, counts.num_dialogues)})"


def _targets(role: str, counts: TokenCounts) -> str:
    number = counts.num_targets_by_role[role]
    return f"{number:,} ({_share(number, counts.num_tokens)})"


def _scores(event: EvaluationDone, width: int | None = None) -> str:
    """One line, or two where it would be longer than ``width``."""
    loss = f"eval step {event.step}  loss {event.loss:.3f}  ppl {short_number(event.perplexity)}"
    metrics = "".join(f"  {_one_line(name)} {value:.2f}" for name, value in event.metrics.items())
    best = f"  best {' and '.join(event.best)} so far" if event.best else ""
    return loss + ("\n" if width and len(loss + metrics + best) > width else "") + metrics + best


def _saved(event: CheckpointSaved) -> str:
    return f"saved step {event.step}  {_one_line(str(event.path))}"


def _finished(event: RunFinished, seconds: float) -> str:
    return f"finished at step {event.step} after {duration(seconds)}: {_one_line(event.reason)}"


def _numbers(event: StepDone, loss: float, tokens_per_second: float) -> str:
    speed = f"{short_number(tokens_per_second)} tok/s"
    return f"loss {loss:.3f}  lr {event.learning_rate:.1e}  grad {event.grad_norm:.3g}  {speed}"


def _sample_lines(sample: SampleReply, *, has_reference: bool) -> list[Text]:
    """The turn that was answered, the reply and perhaps what was really said, a line each."""
    lines = [_labelled(f"  {_one_line(role)}", _one_line(text)) for role, text in sample.history[-1:]]
    cut = "" if sample.stopped else "[token limit] "
    lines.append(_labelled("  reply", cut + (_one_line(sample.reply) or "(empty)")))
    if has_reference:
        lines.append(_labelled("  reference", _one_line(sample.reference)))
    return lines


def _stage_bar(event: Progress, seconds: float) -> RenderableType:
    from rich.progress_bar import ProgressBar

    return _row(_one_line(event.stage), ProgressBar(total=event.total, completed=event.done), _amount(event, seconds))


def _amount(event: Progress, seconds: float) -> str:
    """How much is done, and for bytes how many seconds the rest takes where so much took ``seconds``."""
    if event.total is None and event.done == 0:
        return ""
    if event.unit == "bytes":
        number, name = (10**9, "GB") if max(event.done, event.total or 0) >= 10**9 else (10**6, "MB")
        if event.total is None:
            return f"{event.done / number:,.1f} {name}"
        left = f"  {duration(seconds * (event.total - event.done) / event.done)} left" if event.done else ""
        return f"{event.done / number:,.1f}/{event.total / number:,.1f} {name}{left}"
    return f"{event.done:,}" if event.total is None else f"{event.done:,}/{event.total:,}"


def _row(*cells: RenderableType) -> RenderableType:
    """Cells in one line, the bar among them as wide as the terminal allows."""
    from rich.table import Table

    row = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for cell in cells:
        row.add_column(no_wrap=True, ratio=None if isinstance(cell, str) else 1)
    row.add_row(*(_line(cell) if isinstance(cell, str) else cell for cell in cells))
    return row


def _labelled(label: str, text: str) -> Text:
    line = _line(f"{label[: _LABEL_WIDTH - 1]:<{_LABEL_WIDTH}}{text}")
    line.stylize("dim", 0, _LABEL_WIDTH)
    return line


def _line(text: str) -> Text:
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")


def _one_line(text: str) -> str:
    """Foreign text without control sequences and line breaks."""
    return " ".join(printable(text).split())


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.3g}%"
