"""Lines for events that the live view and the plain log share.

Text from data, models and paths goes through `printable` here and is printed as `rich.text.Text`,
so that nothing in it acts as markup or as a control sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convo_cli.cli.console import printable, shortened
from convo_cli.cli.views.progress.counts_table import show_counts
from convo_cli.cli.views.progress.meter import duration, short_number
from convo_cli.events import (
    CheckpointSaved,
    EvaluationDone,
    Notice,
    Progress,
    RunFinished,
    RunStarted,
    SampleReply,
    StepDone,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_LABEL_WIDTH = 12  # columns


def show(console: Console, line: str | Text, style: str = "") -> None:
    """Print a line without wrapping it."""
    from rich.text import Text

    console.print(Text(line, style=style) if isinstance(line, str) else line, soft_wrap=True)


def show_notice(console: Console, event: Notice) -> None:
    """Print a notice; a warning is marked as one."""
    message = printable(shortened(event.message))
    show(
        console,
        f"warning: {message}" if event.is_warning else message,
        "yellow" if event.is_warning else "",
    )


def show_start(console: Console, event: RunStarted) -> None:
    """Print the description of the run and the table of its data."""
    facts = {
        "run": one_line(str(event.run_dir)),
        "device": f"{one_line(event.device)}, {event.precision}",
        "parameters": f"{event.num_parameters:,}",
        "steps": f"{event.first_step:,} to {event.max_steps:,}, {event.steps_per_epoch:,} per "
        "epoch",
    }
    for label, value in facts.items():
        show(console, _labelled(label, value))
    show_counts(console, event)


def score_lines(event: EvaluationDone, width: int | None = None) -> str:
    """Return the scores as one line, or as two if one would be longer than ``width`` columns."""
    loss = f"eval step {event.step}  loss {event.loss:.3f}  ppl {short_number(event.perplexity)}"
    metrics = "".join(f"  {one_line(name)} {value:.2f}" for name, value in event.metrics.items())
    best = f"  best {' and '.join(event.best)} so far" if event.best else ""
    return loss + ("\n" if width and len(loss + metrics + best) > width else "") + metrics + best


def checkpoint_line(event: CheckpointSaved) -> str:
    """Return the step of the checkpoint and its folder."""
    return f"saved step {event.step}  {one_line(str(event.path))}"


def finish_line(event: RunFinished, seconds: float) -> str:
    """Return at which step, after how many seconds and why the run ended."""
    return f"finished at step {event.step} after {duration(seconds)}: {one_line(event.reason)}"


def numbers_of_step(event: StepDone, loss: float, tokens_per_second: float) -> str:
    """Return loss, learning rate, gradient norm and speed; the caller may have smoothed ``loss``
    and speed.
    """
    speed = f"{short_number(tokens_per_second)} tok/s"
    return f"loss {loss:.3f}  lr {event.learning_rate:.1e}  grad {event.grad_norm:.3g}  {speed}"


def reply_lines(sample: SampleReply, *, has_reference: bool) -> list[Text]:
    """Return a line each for the last turn before the reply, the reply, and with ``has_reference``
    the data's own.
    """
    lines = [_labelled(f"  {one_line(role)}", one_line(text)) for role, text in sample.history[-1:]]
    cut = "" if sample.stopped else "[token limit] "
    lines.append(_labelled("  reply", cut + (one_line(sample.reply) or "(empty)")))
    if has_reference:
        lines.append(_labelled("  reference", one_line(sample.reference)))
    return lines


def amount_done(event: Progress, seconds: float) -> str:
    """Return the progress of a stage that began ``seconds`` ago; for bytes also the time left."""
    if event.total is None and event.done == 0:
        return ""
    if event.unit == "bytes":
        number, name = (
            (10**9, "GB") if max(event.done, event.total or 0) >= 10**9 else (10**6, "MB")
        )
        if event.total is None:
            return f"{event.done / number:,.1f} {name}"
        left = (
            f"  {duration(seconds * (event.total - event.done) / event.done)} left"
            if event.done
            else ""
        )
        return f"{event.done / number:,.1f}/{event.total / number:,.1f} {name}{left}"
    return f"{event.done:,}" if event.total is None else f"{event.done:,}/{event.total:,}"


def cut_line(text: str) -> Text:
    """Return a line, cut with … if the terminal is too narrow for it."""
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")


def one_line(text: str) -> str:
    """Return foreign text without control sequences and line breaks."""
    return " ".join(printable(text).split())


def _labelled(label: str, text: str) -> Text:
    line = cut_line(f"{label[: _LABEL_WIDTH - 1]:<{_LABEL_WIDTH}}{text}")
    line.stylize("dim", 0, _LABEL_WIDTH)
    return line
