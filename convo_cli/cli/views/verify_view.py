"""View of `resume --verify`: the comparisons and the verdict."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convo_cli.cli.console import printable
from convo_cli.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from convo_cli.training.resume.replay import Verdict


def as_record(run_dir: Path, verdict: Verdict) -> dict[str, Any]:
    """Return the verdict as the `--json` object."""
    return {"run_dir": str(run_dir), "is_equal": verdict.difference is None, **asdict(verdict)}


def show_verdict(console: Console, verdict: Verdict) -> None:
    """Print one row for each comparison, and the steps that were taken."""
    from rich.table import Table
    from rich.text import Text

    table = Table("compared", "number", "verdict")
    for check in verdict.checks:
        table.add_row(check.what, f"{check.count:,}", Text(printable(check.difference or "equal")))
    console.print(table)
    resume = f"a save and a resume after {verdict.resumed_after} of them"
    if verdict.compared_with is None:
        how = f"without a break, and with {resume}"
    else:
        how = f"taken again with {resume}, compared with {verdict.compared_with}"
    steps = f"{counted(verdict.num_steps, 'step')} from {verdict.checkpoint}"
    console.print(f"{steps}: {how}", soft_wrap=True, markup=False)
    console.print(f"because {printable(verdict.reason)}", soft_wrap=True, markup=False)
