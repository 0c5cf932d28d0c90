"""Table of the pre-flight: dialogues, tokens and targets of each data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from convo_cli.cli.views.progress.files_line import names_of
from convo_cli.events import RunStarted, TokenCounts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from convo_cli.prepare.preview import Preview

_MAX_FILES = 20


def show_counts(console: Console, event: RunStarted | Preview) -> None:
    """Print the table; rows that are usually zero are omitted if they are."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(f"template: {event.template}")
    named = {"training": event.training, "validation": event.validation, "test": event.test}
    sets = [counts for counts in named.values() if counts is not None]
    for name, counts in named.items():
        if counts is not None:
            table.add_column(name, justify="right")

    def add_row(label: str, value: Callable[[TokenCounts], str]) -> None:
        table.add_row(label, *map(value, sets))

    add_row("dialogues", lambda counts: f"{counts.num_dialogues:,}")
    if any(counts.num_held_back for counts in sets):
        add_row("held back for validation", _held_back)
    add_row(
        "tokens per dialogue",
        lambda counts: f"median {counts.median_tokens:,.0f}, max {counts.max_tokens:,}",
    )
    add_row(f"over max_length {event.max_length:,}", _over_length)
    if any(counts.num_split for counts in sets):
        add_row("split for a long turn", lambda counts: _of_dialogues(counts.num_split, counts))
    if any(counts.num_left_out for counts in sets):
        add_row("left out for a long turn", lambda counts: f"{counts.num_left_out:,}")
    add_row("examples", lambda counts: f"{counts.num_examples:,}")
    add_row("tokens", lambda counts: f"{counts.num_dialogue_tokens:,}")
    if any(counts.num_tokens != counts.num_dialogue_tokens for counts in sets):
        add_row("tokens of the examples", lambda counts: f"{counts.num_tokens:,}")
    for role in ("assistant", "user"):
        if any(counts.num_targets_by_role[role] for counts in sets):
            add_row(f"{role} targets (of tokens)", partial(_targets, role))
    console.print(table)
    if isinstance(event, RunStarted) and event.files:
        console.print()
        console.print(_file_table(event.files))


def _file_table(files: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of the training files and their shares in the steps."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("training file", overflow="fold")
    for name in ("weight", "dialogues", "tokens", "tokens of the steps"):
        table.add_column(name, justify="right")
    names = names_of([str(file["path"]) for file in files])
    for name, file in zip(names[:_MAX_FILES], files, strict=False):
        table.add_row(
            Text(name),
            f"{file['weight']:g}",
            f"{file['num_dialogues']:,}",
            f"{file['num_tokens']:,}",
            f"{100 * file['share']:.3g}%",
        )
    if left := files[_MAX_FILES:]:
        share = sum(file["share"] for file in left)
        table.add_row(f"… and {len(left):,} more", "", "", "", f"{100 * share:.3g}%")
    return table


def _held_back(counts: TokenCounts) -> str:
    if not (number := counts.num_held_back):
        return ""
    return f"{number:,} ({_share(number, number + counts.num_dialogues + counts.num_left_out)})"


def _over_length(counts: TokenCounts) -> str:
    return (
        f"{_of_dialogues(counts.num_over_length, counts)}, in windows"
        if counts.num_over_length
        else "0"
    )


def _of_dialogues(number: int, counts: TokenCounts) -> str:
    return f"{number:,} ({_share(number, counts.num_dialogues)})"


def _targets(role: str, counts: TokenCounts) -> str:
    number = counts.num_targets_by_role[role]
    return f"{number:,} ({_share(number, counts.num_dialogue_tokens)})"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.3g}%"
