"""Tables of `evaluate`: a row for each score, a column for each model, floors beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from convo_cli.cli.console import printable

if TYPE_CHECKING:
    from rich.table import Table

    from convo_cli.evaluation.finished.file_likelihood import ScoredTargets
    from convo_cli.evaluation.finished.model_scoring import ModelScores

_SMALLEST = 0.001
"""Smallest score that is shown with its digits."""


def likelihood_table(names: Sequence[str], models: Sequence[ModelScores]) -> Table:
    """Return the scores of the real replies; without loss and perplexity if the tokens differ."""
    from convo_cli.evaluation.finished.file_likelihood import OF_ANY_TOKENIZER

    is_same = has_same_tokens(models)
    values = [one.likelihood.scores for one in models]
    rows = [
        (
            name.replace("-", " "),
            _cells(
                [value[name] for value in values],
                [one.likelihood_intervals.get(name) for one in models],
            ),
        )
        for name in values[0]
        if is_same or name in OF_ANY_TOKENIZER
    ]
    if is_same:
        for parts in zip(*map(_parts, models), strict=True):
            losses = [None if one is None else one.loss for _, one in parts]
            if losses != [None] * len(models):
                rows.append((parts[0][0], _cells(losses, [None] * len(models))))
    return _table("the real replies", names, rows)


def has_same_tokens(models: Sequence[ModelScores]) -> bool:
    """Return whether all models have the same tokenizer and the same number of targets."""
    return len({(one.tokenizer, one.result.num_targets) for one in models}) == 1


def _parts(model: ModelScores) -> list[tuple[str, ScoredTargets | None]]:
    """Return named parts of the targets: by turn, with user turns, by file."""
    likelihood = model.likelihood
    last = len(likelihood.by_turn)
    parts = [
        (f"loss of turn {turn}{' and later' if turn == last else ''}", one)
        for turn, one in enumerate(likelihood.by_turn, 1)
    ]
    parts.append(("loss with user turns", likelihood.everything))
    if len(model.files) > 1:
        parts += [
            (f"loss of {printable(file.path)}", one)
            for file, one in zip(model.files, likelihood.by_file, strict=True)
        ]
    return parts


def reply_table(names: Sequence[str], models: Sequence[ModelScores]) -> Table | None:
    """Return the scores of the models' replies with floors beside them; None without replies."""
    results = [one.result for one in models]
    metrics = list(dict.fromkeys(name for result in results for name in result.metrics))
    if not metrics:
        return None
    floors, real = next((one.floors, one.real_scores) for one in results if one.metrics)
    rows = []
    for metric in metrics:
        cells = _cells(
            [result.metrics.get(metric) for result in results],
            [result.intervals.get(metric) for result in results],
        )
        by_floor = [values.get(metric) for values in floors.values()]
        if len(models) == 1:
            cells += [_number(value) for value in (*by_floor, real.get(metric))]
        else:
            cells.append(_to_compare(metric, by_floor, real.get(metric)))
        rows.append((metric, cells))
    return _table("replies", names, rows, [*floors, "real"] if len(models) == 1 else ["best floor"])


def _to_compare(metric: str, by_floor: Sequence[float | None], real: float | None) -> str:
    """Return the best floor, or the real replies' score for a metric that is best at it."""
    from convo_cli.metrics.metric_table import METRICS

    is_higher_better = METRICS[metric].is_higher_better
    if is_higher_better is None:
        return "-" if real is None else f"real {_number(real)}"
    values = [value for value in by_floor if value is not None]
    return _number((max if is_higher_better else min)(values, default=None))


def _table(
    title: str,
    names: Sequence[str],
    rows: Sequence[tuple[str, Sequence[str]]],
    others: Iterable[str] = (),
) -> Table:
    from rich.table import Table

    table = Table(title, *(["value", "95 % interval"] if len(names) == 1 else names), *others)
    for column in table.columns:
        column.overflow = "fold"  # two names that are cut could look the same
    for column in table.columns[1:]:
        column.justify = "right"
    for name, cells in rows:
        table.add_row(name, *cells)
    return table


def _cells(
    values: Sequence[float | None], intervals: Sequence[tuple[float, float] | None]
) -> list[str]:
    """Return the score of each model with half the width of its interval, such as 0.16 ±0.02.

    A single model has two cells: the score, and the bounds of the interval.
    """
    if len(values) == 1:
        bounds = intervals[0]
        return [_number(values[0]), "" if bounds is None else "–".join(map(_number, bounds))]
    halves = [None if bounds is None else (bounds[1] - bounds[0]) / 2 for bounds in intervals]
    return [
        _number(value) + ("" if half is None else f" ±{_half_width(half)}")
        for value, half in zip(values, halves, strict=True)
    ]


def _half_width(value: float) -> str:
    """Format with one significant digit, or with two from 10 on."""
    return f"{float(f'{value:.2g}'):,.0f}" if 10 <= value < 1e6 else f"{value:.1g}"


def _number(value: float | None) -> str:
    """Format with three digits, so that three models fit side by side: 0.123, 12.3, 12,300."""
    if value is None:
        return "-"
    size = abs(value)
    if 0 < size < _SMALLEST:
        return f"<{_SMALLEST}"
    decimals = 3 if 0 < size < 1 else 2 if 1 <= size < 10 else 1 if 10 <= size < 100 else None
    if decimals is not None:
        return f"{value:.{decimals}f}"
    return f"{float(f'{value:.3g}'):,.0f}" if 1000 <= size < 1e6 else f"{value:.3g}"
