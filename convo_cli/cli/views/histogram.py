"""Histogram of one number per dialogue: its range, median and mean, and a bar for each bucket."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from convo_cli.data.checks.report import Spread

_BAR_WIDTH = 14
_EIGHTHS = " ▏▎▍▌▋▊▉"


def histogram(title: str, spread: Spread, *, is_unicode: bool) -> Table:
    """Return the histogram as a table; without Unicode, bars are made of #."""
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, style="cyan")
    largest = max(bucket.count for bucket in spread.histogram)
    for bucket in spread.histogram:
        between = (
            f"{bucket.low:,}" if bucket.low == bucket.high else f"{bucket.low:,}-{bucket.high:,}"
        )
        table.add_row(
            between, f"{bucket.count:,}", _bar(bucket.count / largest, is_unicode=is_unicode)
        )
    column = Table.grid()
    column.add_row(Text(title, style="bold"))
    column.add_row(
        Text(
            f"{spread.min:,} to {spread.max:,}, "
            f"median {_number(spread.median)}, mean {_number(spread.mean)}"
        )
    )
    column.add_row(table)
    return column


def _number(number: float) -> str:
    return f"{number:,.1f}".removesuffix(".0")


def _bar(share: float, *, is_unicode: bool) -> str:
    """Return a bar with this share of the longest bar; any share above zero is visible."""
    if not is_unicode:
        return "#" * ceil(share * _BAR_WIDTH)
    eighths = ceil(share * _BAR_WIDTH * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
