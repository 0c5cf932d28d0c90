"""View of `report` for several runs and models: tables, and replies to the same dialogues."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from convo_cli.cli.console import print_line, printable
from convo_cli.cli.views.progress.event_lines import show, wrap_words
from convo_cli.report.comparing.comparison import Comparison
from convo_cli.report.comparing.comparison_tables import (
    difference_table,
    saved_table,
    score_rows,
    summary_table,
)
from convo_cli.report.shown import shown

if TYPE_CHECKING:
    from rich.console import Console

    from convo_cli.report.page_tables import Table

_LONGEST_CELL = 60
_LONGEST_REPLY = 200
_MAX_DIALOGUES = 2


def show_comparison(console: Console, comparison: Comparison, page: Path | None) -> None:
    """Print the letters, the cautions, the tables, and the replies to the first dialogues."""
    for member in comparison.members:
        missing = f" ({', '.join(member.missing)})" if member.missing else ""
        print_line(console, f"{member.letter}  {member.source}{missing}", "bold")
    show(console, wrap_words(printable(comparison.headline), console.width))
    for caution in comparison.cautions:
        show(console, wrap_words(printable(f"caution: {caution}"), console.width), "yellow")
    for table in _tables(comparison):
        if table is not None and table.rows:
            _show_table(console, table)
    if not comparison.differences:
        print_line(console, difference_table(comparison).note)
    for dialogue in comparison.dialogues[:_MAX_DIALOGUES]:
        console.print()
        for turn in dialogue.history[-2:]:
            print_line(console, f"{shown(turn.role, 20)}: {_one_line(turn.content)}", "dim")
        print_line(console, f"real reply: {_one_line(dialogue.reference)}")
        for member, sample in zip(comparison.members, dialogue.replies, strict=True):
            if sample is not None:
                print_line(console, f"{member.letter}: {_one_line(sample.reply) or '(empty)'}")
    if page is not None:
        console.print()
        print_line(console, str(page))


def _tables(comparison: Comparison) -> Iterator[Table | None]:
    yield summary_table(comparison)
    yield saved_table(comparison)
    yield score_rows(comparison)
    yield difference_table(comparison)


def _show_table(console: Console, table: Table) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    console.print()
    print_line(console, table.caption, "bold")
    drawn = RichTable()
    for index, name in enumerate(table.head):
        justify: Literal["left", "right"] = "right" if index in table.numeric else "left"
        drawn.add_column(Text(printable(name)), justify=justify, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(printable(_one_line(cell, _LONGEST_CELL))) for cell in row))
    console.print(drawn)


def _one_line(text: str, limit: int = _LONGEST_REPLY) -> str:
    return " ".join(shown(text, limit).split())
