"""View of `report` for one run: the summary, and the path of the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from convo_cli.cli.console import print_line, printable
from convo_cli.cli.views.progress.event_lines import show, wrap_words
from convo_cli.report.story import best_checkpoint, headline, outcome

if TYPE_CHECKING:
    from rich.console import Console

    from convo_cli.report.reading.gathering import Gathered


def show_run(console: Console, run: Gathered, page: Path, *, is_quiet: bool) -> None:
    """Print the summary of the run and the path of its page; if quiet, only the path."""
    if not is_quiet:
        for text in (headline(run), outcome(run), best_checkpoint(run)):
            show(console, wrap_words(printable(text), console.width))
    print_line(console, str(page))
