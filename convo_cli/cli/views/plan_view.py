"""View of `train --dry-run`: the plan of a run as text and for `--json`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from convo_cli.cli.console import printable
from convo_cli.cli.views.progress.counts_table import show_counts
from convo_cli.cli.views.progress.event_lines import show
from convo_cli.cli.views.progress.meter import duration
from convo_cli.errors import typeable
from convo_cli.report.shown import size
from convo_cli.wording import counted, shared_device

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from convo_cli.events import RunStarted, TokenCounts
    from convo_cli.training.planning.plan import Plan

_LABEL_WIDTH = 14
_SMALLEST = 2**17  # bytes; smaller parts of the memory are not shown
_PLOT_HEIGHT = 6  # rows
_PLOT_WIDTH = 56  # columns at most
_EIGHTHS = " ▁▂▃▄▅▆▇█"


def as_record(plan: Plan) -> dict[str, Any]:
    """Return the plan as the `--json` object."""
    start, rates = plan.start, plan.learning_rates
    peak_step, peak = _peak(rates)
    return {
        "is_dry_run": True,
        "run_dir": str(start.run_dir),
        "device": start.device,
        "num_processes": start.num_processes,
        "precision": start.precision,
        "num_parameters": start.num_parameters,
        "num_trained_parameters": plan.num_trained_parameters,
        "template": start.template,
        "max_length": start.max_length,
        "micro_batch_size": start.micro_batch_size,
        "files": list(start.files),
        "training": _counts(start.training),
        "validation": None if start.validation is None else _counts(start.validation),
        "test": None if start.test is None else _counts(start.test),
        "max_steps": start.max_steps,
        "steps_per_epoch": start.steps_per_epoch,
        "epochs": plan.epochs,
        "num_tokens": plan.num_tokens,
        "num_targets": plan.num_targets,
        "tokens_per_step": plan.num_tokens / start.max_steps,
        "targets_per_step": plan.num_targets / start.max_steps,
        "num_evaluations": plan.num_evaluations,
        "may_stop_early": plan.may_stop_early,
        "num_checkpoints": plan.num_checkpoints,
        "checkpoint_bytes": plan.checkpoint_bytes,
        "max_checkpoints": plan.max_checkpoints,
        "peak_bytes": plan.peak_bytes,
        "free_bytes": plan.free_bytes,
        "learning_rate": {
            "first": rates[0][1],
            "peak": peak,
            "peak_step": peak_step,
            "last": rates[-1][1],
            "values": [{"step": step, "learning_rate": rate} for step, rate in rates],
        },
        **_estimates(plan),
    }


def _estimates(plan: Plan) -> dict[str, Any]:
    """Return the estimates of memory and time for the `--json` object."""
    if (estimate := plan.estimate) is None:
        return {"memory": None, "seconds_per_step": None, "seconds": None}
    memory, seconds = estimate.memory, estimate.seconds_per_step
    return {
        "memory": {
            "basis": "measured" if estimate.is_measured else "computed",
            **{f"{name}_bytes": num_bytes for name, num_bytes in asdict(memory).items()},
            "peak_bytes": memory.peak,
            "free_bytes": estimate.room,
            "savings": [asdict(saving) for saving in estimate.savings],
        },
        "seconds_per_step": seconds,
        "seconds": None if seconds is None else seconds * plan.start.max_steps,
    }


def show_next(config: Path, overrides: Sequence[str]) -> None:
    """Print the command that starts the planned run on stderr."""
    settings = "".join(f" --set {typeable(override)}" for override in overrides)
    sys.stderr.write(f"next:\n  convo train {typeable(config)}{settings}\n")


def show_plan(console: Console, plan: Plan) -> None:
    """Print the plan as text."""
    start = plan.start
    show_counts(console, start)
    console.print()
    for label, text in _facts(plan):
        show(console, f"{label:<{_LABEL_WIDTH}}{text}")
    if plan.free_bytes and plan.peak_bytes > plan.free_bytes:
        show(console, "warning: the checkpoints need more disk space than is free", "yellow")
    if plan.estimate is not None and plan.estimate.memory.peak > plan.estimate.room:
        from convo_cli.training.planning.memory_advice import settings_text

        show(console, "warning: the run needs more memory than is free", "yellow")
        show(console, f"hint: {settings_text(list(plan.estimate.savings))}")
    console.print()
    width = min(_PLOT_WIDTH, console.width - 12)
    for line in _plot(plan.learning_rates, width, is_unicode=console.encoding.startswith("utf")):
        show(console, line)


def _facts(plan: Plan) -> list[tuple[str, str]]:
    start, rates = plan.start, plan.learning_rates
    corners = dict.fromkeys((rates[0], _peak(rates), rates[-1]))
    is_all = plan.num_trained_parameters == start.num_parameters
    trained = "all" if is_all else f"{plan.num_trained_parameters:,}"
    tokens, targets = (
        f"{number / start.max_steps:,.0f}" for number in (plan.num_tokens, plan.num_targets)
    )
    each, at_once = size(plan.checkpoint_bytes), counted(plan.max_checkpoints, "checkpoint")
    free = f"; {size(plan.free_bytes)} free" if plan.free_bytes else ""
    sooner = [("", "early stopping may end the run sooner")] if plan.may_stop_early else []
    which = "best checkpoint by loss" if plan.num_evaluations else "last checkpoint"
    test = [("test", f"once, at the end of the run, with the {which}")] if start.test else []
    return [
        ("run", f"{printable(str(start.run_dir))} (dry run: not created)"),
        ("device", f"{shared_device(start.device, start.num_processes)}, {start.precision}"),
        ("parameters", f"{start.num_parameters:,}, {trained} trained"),
        ("steps", f"{start.max_steps:,}, {tokens} tokens and {targets} targets each on average"),
        ("micro-batches", _micro_batches(start)),
        *sooner,
        ("epochs", f"{_epochs(plan.epochs)}, {counted(start.steps_per_epoch, 'step')} each"),
        ("evaluations", f"{plan.num_evaluations:,}"),
        *test,
        ("checkpoints", f"{plan.num_checkpoints:,}, {each} each; the first is smaller"),
        ("disk", f"{size(plan.peak_bytes)} for at most {at_once} at once{free}"),
        *_memory_and_time(plan),
        ("learning rate", ", ".join(f"{rate:.2g} at step {step:,}" for step, rate in corners)),
    ]


def _memory_and_time(plan: Plan) -> list[tuple[str, str]]:
    if (estimate := plan.estimate) is None:
        return [("memory", "not estimated, because the memory of this machine cannot be read")]
    memory = estimate.memory
    how = "measured with one batch" if estimate.is_measured else "computed"
    each = " for each process" if plan.start.num_processes > 1 else ""
    parts = [
        f"{size(num_bytes)} {name}"
        for name, num_bytes in asdict(memory).items()
        if num_bytes >= _SMALLEST
    ]
    peak = f"{size(memory.peak)} at most{each} ({how}); {size(estimate.room)} free"
    rows = [("memory", peak), ("", ", ".join(parts))]
    if (seconds := estimate.seconds_per_step) is not None:
        whole = duration(seconds * plan.start.max_steps)
        a_step = f"{seconds:.2g}" if seconds < 10 else f"{seconds:,.0f}"
        rows.append(("time", f"{a_step} s a step, {whole} for all steps without evaluations"))
    return rows


def _plot(rates: Sequence[tuple[int, float]], width: int, *, is_unicode: bool) -> list[str]:
    """Draw the learning rate over the steps, with the peak and the range of steps as labels."""
    first, last = rates[0][0], rates[-1][0]
    _, peak = _peak(rates)
    width = max(1, min(width, last - first + 1))
    columns = [
        _rate_at(rates, first + (last - first) * k / max(1, width - 1)) for k in range(width)
    ]
    lines = []
    for row in reversed(range(_PLOT_HEIGHT)):
        filled = [_PLOT_HEIGHT * rate / (peak or 1.0) - row for rate in columns]
        if is_unicode:
            cells = (_EIGHTHS[round(8 * min(1.0, max(0.0, part)))] for part in filled)
        else:
            cells = ("#" if part >= 0.5 else " " for part in filled)
        label = {_PLOT_HEIGHT - 1: f"{peak:.2g}", 0: "0"}.get(row, "")
        lines.append(f"{label:>9} {''.join(cells)}".rstrip())
    gap = max(1, width - len(f"{first:,}") - len(f"{last:,}"))
    lines.append(f"{'step':>9} {first:,}{' ' * gap}{last:,}" if last > first else f"{'step':>9} 1")
    return lines


def _rate_at(rates: Sequence[tuple[int, float]], step: float) -> float:
    """Return the rate at a step, on a straight line between the two known ones around it."""
    before = max(rate for rate in rates if rate[0] <= step)
    after = min(rate for rate in rates if rate[0] >= step)
    share = (step - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
    return before[1] + share * (after[1] - before[1])


def _peak(rates: Sequence[tuple[int, float]]) -> tuple[int, float]:
    """Return the first step with the highest rate, and that rate."""
    return max(rates, key=lambda rate: rate[1])


def _counts(counts: TokenCounts) -> dict[str, Any]:
    return {**asdict(counts), "num_targets_by_role": dict(counts.num_targets_by_role)}


def _micro_batches(start: RunStarted) -> str:
    most = start.micro_batch_size
    if most is None or (start.batch_size is not None and most >= start.batch_size):
        return "all examples of a step"
    return f"{counted(most, 'example')} each"


def _epochs(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"
