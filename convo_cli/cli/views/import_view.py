"""View of `convo import`: what was written, by whom, what was dropped, and the next commands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from convo_cli.cli.console import print_line, printable
from convo_cli.cli.given_paths import new_config_command
from convo_cli.errors import typeable
from convo_cli.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from convo_cli.importers.messages import ImportReport

_NUM_SPEAKERS = 12
_FIRST_DATE = 1e8
"""Seconds, in 1973: a log without dates has only times of a day."""


def as_record(report: ImportReport, out: Path) -> dict[str, Any]:
    """Return the `--json` object."""
    return {
        "out": str(out),
        **asdict(report),
        "first_time": _moment(report.first_time),
        "last_time": _moment(report.last_time),
    }


def show_import(
    console: Console, report: ImportReport, out: Path, pause: str, *, is_quiet: bool
) -> None:
    """Print the counts of an import; if quiet, only its warnings."""
    if not is_quiet:
        table = Table.grid(padding=(0, 2))
        table.add_column(overflow="fold")
        table.add_column(justify="right", no_wrap=True)
        table.add_column(style="dim", overflow="fold", min_width=1)
        for name, number, note in _facts(report, pause):
            table.add_row(Text(printable(name)), f"{number:,}", Text(printable(note) or " "))
        print_line(console, f"{out} ({report.format})", "bold")
        console.print(Padding(table, (0, 0, 0, 2), expand=False))
        console.print()
    for warning in _warnings(report):
        print_line(console, f"warning: {warning}", "yellow")
    if not is_quiet:
        print_line(console, f"next: convo validate-data {typeable(out)}")
        print_line(console, f"      {new_config_command(out)}")


def _facts(report: ImportReport, pause: str) -> Iterator[tuple[str, int, str]]:
    dates = [_moment(time) for time in (report.first_time, report.last_time)]
    span = f"{dates[0]} to {dates[1]}, cut at pauses of {pause}" if None not in dates else ""
    yield "dialogues", report.num_dialogues, span
    yield "turns", report.num_turns, ""
    for speaker in report.speakers[:_NUM_SPEAKERS]:
        yield f"messages of {speaker.name}", speaker.num_messages, speaker.role
    if rest := report.speakers[_NUM_SPEAKERS:]:
        number = sum(speaker.num_messages for speaker in rest)
        yield f"messages of {len(rest):,} more people", number, ""
    for reason, number in report.dropped.items():
        yield "dropped", number, reason
    for reason, number in report.left_out.items():
        yield "left out", number, reason
    if report.num_removed_characters:
        yield (
            "characters removed",
            report.num_removed_characters,
            "control characters and invisible",
        )
    if report.num_continuations:
        yield (
            "continuation lines",
            report.num_continuations,
            "lines of a message after its first",
        )


def _warnings(report: ImportReport) -> Iterator[str]:
    yield from report.notes
    if report.num_backward:
        yield (
            f"{counted(report.num_backward, 'message')} dated before the one above; a pasted text "
            "can imitate the start of a message, and is then read as the words of another person"
        )
    if report.personal:
        found = ", ".join(f"{kind}: {number:,}" for kind, number in report.personal.items())
        yield (
            f"the texts contain personal data ({found}); a model can repeat it. Remove "
            "it, or ask these people, before you share the data or a model trained on it"
        )


def _moment(seconds: float | None) -> str | None:
    if seconds is None or seconds < _FIRST_DATE:
        return None
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return None
