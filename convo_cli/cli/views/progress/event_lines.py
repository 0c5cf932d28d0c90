"""Lines for events that the live view and the plain log share.

Text from data, models and paths goes through `printable` here and is printed as `rich.text.Text`,
so that nothing in it acts as markup or as a control sequence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from convo_cli.cli.console import printable, shortened, with_given_names
from convo_cli.cli.views.progress.counts_table import show_counts
from convo_cli.cli.views.progress.meter import duration, short_number
from convo_cli.errors import typeable
from convo_cli.events import (
    BestScore,
    CheckpointSaved,
    DeviceMeasured,
    EvaluationDone,
    Notice,
    Progress,
    RunFinished,
    RunStarted,
    SampleReply,
    StepDone,
)
from convo_cli.wording import counted, shared_device

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_LABEL_WIDTH = 12  # columns
_WORD = re.compile(r"`[^`]*`\S*|\S+")  # a command in backquotes stays on one line, to be copied


def show(console: Console, line: str | Text, style: str = "") -> None:
    """Print a line without wrapping it."""
    from rich.text import Text

    console.print(Text(line, style=style) if isinstance(line, str) else line, soft_wrap=True)


def show_notice(console: Console, event: Notice) -> None:
    """Print a notice; a warning is marked as one. On a terminal, lines end between words."""
    text = printable(with_given_names(shortened(event.message)))
    message = ("warning: " if event.is_warning else "") + text
    if console.is_terminal:
        lines = message.splitlines() or [message]
        message = "\n".join(wrap_words(line, console.width) for line in lines)
    show(console, message, "yellow" if event.is_warning else "")


def show_start(console: Console, event: RunStarted) -> None:
    """Print the description of the run and the table of its data."""
    device = shared_device(event.device, event.num_processes)
    steps = f"{event.first_step:,} to {event.max_steps:,}, {event.steps_per_epoch:,} per epoch"
    facts = {
        "run": one_line(str(event.run_dir)),
        "device": f"{one_line(device)}, {event.precision}",
        "parameters": f"{event.num_parameters:,}",
        "steps": steps,
        "to stop": f"Ctrl-C or `touch {typeable(event.run_dir / 'stop')}` saves and stops",
    }
    for label, value in facts.items():
        show(console, _labelled(label, value))
    show_counts(console, event)


def score_fields(
    event: EvaluationDone, best: Sequence[BestScore], *, metric: str = ""
) -> list[str]:
    """Return the scores, those that are the best so far, and an earlier best loss.

    Of the metrics of replies, those with room in a line and the ``metric`` of the run.
    """
    from convo_cli.metrics.metric_table import brief, written

    fields = [
        f"loss {event.loss:.3f}",
        f"perplexity {short_number(event.perplexity)}",
        *(
            f"{one_line(name)} {written(name, value)}"
            for name, value in brief(event.metrics, metric).items()
        ),
    ]
    names = [one_line(score.name) for score in best if score.step == event.step]
    if names:
        fields.append(f"best {' and '.join(names)} so far")
    fields += [
        f"best loss {score.value:.3f} at step {score.step}"
        for score in best
        if score.name == "loss" and score.step != event.step
    ]
    return fields


def score_line(event: EvaluationDone, best: Sequence[BestScore], *, metric: str = "") -> str:
    """Return the scores of an evaluation as one line of a log."""
    return "  ".join([f"eval step {event.step}", *score_fields(event, best, metric=metric)])


def best_fields(best: Sequence[BestScore]) -> list[str]:
    """Return each best score so far with its step."""
    from convo_cli.metrics.metric_table import written

    return [
        f"{one_line(score.name)} {written(score.name, score.value)} at step {score.step}"
        for score in best
    ]


def checkpoint_line(event: CheckpointSaved) -> str:
    """Return the step of the checkpoint and its folder."""
    return f"saved step {event.step}  {one_line(str(event.path))}"


def finish_line(event: RunFinished, seconds: float) -> str:
    """Return the last step, the duration of the run and the reason of its end."""
    return f"finished at step {event.step} after {duration(seconds)}: {one_line(event.reason)}"


def step_fields(event: StepDone, loss: float, tokens_per_second: float) -> list[str]:
    """Return the numbers of a step; ``loss`` and the speed are smoothed, or the step's own."""
    return [
        f"loss {loss:.3f}",
        f"lr {event.learning_rate:.1e}",
        f"grad norm {event.grad_norm:.3g}",
        f"{short_number(tokens_per_second)} tokens/s",
    ]


def usage_fields(event: DeviceMeasured) -> list[str]:
    """Return the available values of the run's device: memory and load, heat and power of a GPU."""
    if (gpu := event.gpu) is None:
        fields = {
            "{:.1f} GiB memory": _gib(event.memory_bytes),
            "peak {:.1f} GiB": _gib(event.peak_memory_bytes),
            "CPUs {:.0%} busy": event.cpu_utilization,
        }
    else:
        total = "" if gpu.total_bytes is None else f"of {gpu.total_bytes / 2**30:.1f} "
        fields = {
            "{:.1f} GiB memory": _gib(gpu.process_bytes),
            f"{{:.1f}} {total}GiB in use": _gib(gpu.used_bytes),
            "GPU {:.0%} busy": gpu.utilization,
            "{:.0f} °C": gpu.temperature_celsius,
            "{:.0f} W": gpu.power_watts,
        }
    return [text.format(value) for text, value in fields.items() if value is not None]


def _gib(num_bytes: int | None) -> float | None:
    return None if num_bytes is None else num_bytes / 2**30


def reply_lines(sample: SampleReply, *, has_reference: bool) -> list[Text]:
    """Return a line each for the last turn of the history, the reply, and the data's own reply."""
    lines = [_labelled(f"  {one_line(role)}", one_line(text)) for role, text in sample.history[-1:]]
    cut = "" if sample.stopped else "[token limit] "
    lines.append(_labelled("  reply", cut + (one_line(sample.reply) or "(empty)")))
    if has_reference:
        lines.append(_labelled("  reference", one_line(sample.reference)))
    return lines


def stage_line(event: Progress, seconds: float) -> str:
    """Return the line of a stage that began ``seconds`` ago; at its beginning, only its size."""
    stage = one_line(event.stage)
    if event.done or event.total is None or seconds:
        return f"{stage} {amount_done(event, seconds)}".rstrip()
    if event.unit == "bytes":
        number, name = _scale(event.total)
        return f"{stage} ({event.total / number:,.1f} {name})"
    return f"{stage} ({_counted(event.total, event.unit)})"


def amount_done(event: Progress, seconds: float) -> str:
    """Return the progress of a stage that began ``seconds`` ago; for bytes also the time left."""
    if event.total is None and event.done == 0:
        return ""
    if event.unit == "bytes":
        number, name = _scale(max(event.done, event.total or 0))
        if event.total is None:
            return f"{event.done / number:,.1f} {name}"
        left = f"  {duration(seconds * (event.total / event.done - 1))} left" if event.done else ""
        return f"{event.done / number:,.1f}/{event.total / number:,.1f} {name}{left}"
    if event.total is None:
        return _counted(event.done, event.unit)
    return f"{event.done:,}/{_counted(event.total, event.unit)}"


def _counted(number: int, unit: str) -> str:
    return counted(number, unit.removesuffix("s")) if unit else f"{number:,}"


def _scale(num_bytes: int) -> tuple[int, str]:
    if num_bytes >= 10**9:
        return 10**9, "GB"
    return (10**6, "MB") if num_bytes >= 10**6 else (10**3, "kB")


def flow(label: str, fields: Iterable[str], width: int) -> list[Text]:
    """Return labelled lines of at most ``width`` columns, broken only between two fields."""
    from rich.cells import cell_len

    rows: list[list[str]] = []
    used = 0
    for field in fields:
        if not rows or used + 2 + cell_len(field) > width - _LABEL_WIDTH:
            rows.append([])
            used = -2
        rows[-1].append(field)
        used += 2 + cell_len(field)
    lines = ["  ".join(row) for row in rows]
    return [_labelled(label if row == 0 else "", line) for row, line in enumerate(lines)]


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


def wrap_words(text: str, width: int) -> str:
    """Break a text between words, never inside a command; a longer word is left to the terminal."""
    from rich.cells import cell_len

    lines = [""]
    for word in _WORD.findall(text):
        longer = f"{lines[-1]} {word}".lstrip()
        if cell_len(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)
