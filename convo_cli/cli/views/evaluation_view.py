"""View of `evaluate`: the model and its data, the scores, the counts behind them, and cautions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convo_cli.cli.console import print_line, printable
from convo_cli.cli.views.progress.event_lines import flow, show, wrap_words
from convo_cli.events import EvaluationDone

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from convo_cli.runs.loaded import LoadedCheckpoint
    from convo_cli.runs.provenance.data_files import DataFile


@dataclass(frozen=True)
class Evaluated:
    """The result of `evaluate`, and what it belongs to."""

    model: str
    """The user's name for the model."""
    folder: Path | None
    loaded: LoadedCheckpoint | None
    """The checkpoint of a run; None for an export or a hub id."""
    files: tuple[DataFile, ...]
    result: EvaluationDone
    cautions: tuple[str, ...]


def as_record(evaluated: Evaluated) -> dict[str, Any]:
    """Return the `--json` object."""
    loaded = evaluated.loaded
    return {
        "model": evaluated.model,
        "source": str(evaluated.folder),
        "step": None if loaded is None else loaded.own.step,
        "checkpoint": None if loaded is None else loaded.as_record(),
        "data": [file.model_dump(include={"path", "sha256"}) for file in evaluated.files],
        "scores": _scores(evaluated.result),
        "counts": _counts(evaluated.result),
        "cautions": list(evaluated.cautions),
    }


def show_scores(console: Console, evaluated: Evaluated) -> None:
    """Print the model, the files, a table of scores, a line of counts, and the cautions."""
    from rich.table import Table

    loaded, result = evaluated.loaded, evaluated.result
    title = "" if loaded is None else f", {loaded.title}"
    print_line(console, f"{'model':<12}{evaluated.model}{title}")
    for number, file in enumerate(evaluated.files):
        print_line(console, f"{'' if number else 'data':<12}{file.path}")
    table = Table("score", "value", "meaning")
    table.columns[1].justify = "right"
    for name, value in _scores(result).items():
        table.add_row(name, f"{value:.4g}", _meaning(name))
    console.print(table)
    for line in flow("counted on", _counted(_counts(result)), console.width):
        console.print(line)
    for caution in evaluated.cautions:
        text = f"caution: {printable(caution)}"
        show(console, wrap_words(text, console.width) if console.is_terminal else text, "yellow")


def _scores(result: EvaluationDone) -> Mapping[str, float]:
    return {"loss": result.loss, "perplexity": result.perplexity, **result.metrics}


def _meaning(score: str) -> str:
    """Return the unit of a score and its best value."""
    if score == "loss":
        return "nats per target token, lower is better"
    if score == "perplexity":
        return "exp(loss), lower is better"
    from convo_cli.metrics.metric_table import METRICS

    metric = METRICS[score]
    return f"{metric.meaning}; {metric.direction}"


_SINGULAR = {"targets": "target", "replies": "reply", "split dialogues": "split dialogue"}


def _counted(counts: Mapping[str, int]) -> list[str]:
    return [
        f"{count:,} {_SINGULAR[name] if count == 1 else name}"
        for name, count in counts.items()
        if count or name != "split dialogues"
    ]


def _counts(result: EvaluationDone) -> Mapping[str, int]:
    return {
        "targets": result.num_targets,
        "replies": len(result.samples),
        "split dialogues": result.num_split,
    }
