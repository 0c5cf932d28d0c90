"""View of `validate-data --fix`: counts of lines, and the first repairs of each kind."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from convo_cli.cli.console import print_line
from convo_cli.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from convo_cli.data.checks.problem_tally import ProblemGroup
    from convo_cli.data.checks.report import DataReport, FileReport
    from convo_cli.data.repair.repairs import RepairGroup, RepairReport


def as_fields(report: DataReport | ProblemGroup | RepairReport) -> dict[str, Any]:
    """Return a report for `--json`; the hints of single problems are those of their groups."""
    return asdict(
        report, dict_factory=lambda items: {key: item for key, item in items if key != "advice"}
    )


def show_repairs(console: Console, repaired: RepairReport, written: FileReport) -> None:
    """Print the lines that were repaired and left out; ``written`` is the report of the copy."""
    unchanged = f"{repaired.num_unchanged:,} of {counted(repaired.num_lines, 'line')} unchanged"
    counts = f"{unchanged}, {repaired.num_repaired:,} repaired, {repaired.num_left_out:,} left out"
    print_line(console, f"{written.file}: {counts}", "bold")
    for group in repaired.repaired:
        _show_group(console, "repaired", "green", group)
    for group in repaired.left_out:
        _show_group(console, "left out", "bold red", group)
    if written.num_reasoning_turns and written.reasoning is not None:
        setting = f"set data.reasoning: {written.reasoning} in the config that reads this file"
        print_line(console, f"the lines keep their reasoning: {setting}")
    console.print()


def _show_group(console: Console, title: str, style: str, group: RepairGroup) -> None:
    head = (
        Text(f"{title} ", style=style)
        .append(group.code, style="bold")
        .append(f"  {group.count:,}", style="default")
    )
    console.print(head, soft_wrap=True)
    for problem in group.problems:
        print_line(console, f"  {problem}")
    if more := group.count - len(group.problems):
        print_line(console, f"  {more:,} more", "dim")
    print_line(console, f"  {group.what}", "dim")
