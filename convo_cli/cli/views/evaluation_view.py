"""View of `evaluate`: the scores of a model, and the counts behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convo_cli.events import EvaluationDone

if TYPE_CHECKING:
    from rich.console import Console

    from convo_cli.runs.provenance.data_files import DataFile


def as_record(
    model: str, folder: Path | None, files: Sequence[DataFile], result: EvaluationDone
) -> dict[str, Any]:
    """Return the `--json` object; ``model`` is the user's name for the model, ``folder`` its
    place.
    """
    return {
        "model": model,
        "source": str(folder),
        "data": [file.model_dump(include={"path", "sha256"}) for file in files],
        "scores": _scores(result),
        "counts": _counts(result),
    }


def show_scores(console: Console, result: EvaluationDone) -> None:
    """Print scores and counts as one table."""
    from rich.table import Table

    table = Table("score", "value")
    table.columns[1].justify = "right"
    for name, value in _scores(result).items():
        table.add_row(name, f"{value:.4g}")
    for name, count in _counts(result).items():
        table.add_row(name, f"{count:,}")
    console.print(table)


def _scores(result: EvaluationDone) -> Mapping[str, float]:
    return {"loss": result.loss, "perplexity": result.perplexity, **result.metrics}


def _counts(result: EvaluationDone) -> Mapping[str, int]:
    return {
        "targets": result.num_targets,
        "replies": len(result.samples),
        "split dialogues": result.num_split,
    }
