"""View of `validate-data`: the contents of each file, leaks between files, problems, verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from convo_cli.cli.console import print_line, printable
from convo_cli.cli.views.config_view import show_proposals
from convo_cli.cli.views.histogram import histogram
from convo_cli.cli.views.repair_view import as_fields, show_repairs
from convo_cli.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from convo_cli.data.checks.problem_tally import ProblemGroup
    from convo_cli.data.checks.report import DataReport, FileReport
    from convo_cli.data.repair.repairs import RepairReport
    from convo_cli.prepare.preview import Preview, ShownExample

_MAX_NAMES = 4
_STYLES = {"error": "bold red", "warning": "yellow"}
_TARGET_STYLES = {"none": "dim", "assistant": "green", "user": "cyan"}


def as_record(
    report: DataReport,
    preview: Preview | None,
    refused: Sequence[ProblemGroup],
    repaired: RepairReport | None,
) -> dict[str, Any]:
    """Return the `--json` object; ``refused`` holds the problems that only the pre-flight found."""
    return {
        "is_trainable": report.is_trainable and not refused,
        "num_errors": report.num_errors + _num_problems(refused),
        "num_warnings": report.num_warnings,
        **as_fields(report),
        "preflight": None if preview is None else asdict(preview),
        "preflight_problem_groups": [as_fields(group) for group in refused],
        "fix": None if repaired is None else as_fields(repaired),
    }


def show_report(
    console: Console,
    report: DataReport,
    preview: Preview | None,
    refused: Sequence[ProblemGroup],
    repaired: RepairReport | None,
    *,
    is_quiet: bool,
    options: str = "",
) -> None:
    """Print the whole report; if quiet, only repairs, problems, mappings and the verdict."""
    if repaired is not None:
        show_repairs(console, repaired, report.files[0])
    if not is_quiet:
        for file in report.files:
            _show_file(console, file)
        for leak in report.leaks:
            share = _share(leak.num_dialogues, _num_dialogues(report, leak.file))
            print_line(
                console,
                f"{leak.file}: {counted(leak.num_dialogues, 'dialogue')} ({share}) also in "
                f"{leak.earlier_file}",
            )
        if report.leaks:
            console.print()
        if preview is not None:
            _show_preview(console, preview)
    groups = [(file.file, group) for file in report.files for group in file.problem_groups]
    _show_problems(console, [*groups, *(("the pre-flight", group) for group in refused)])
    show_proposals(console, report.proposals, options)
    _show_verdict(console, report, refused)


def _show_preview(console: Console, preview: Preview) -> None:
    from convo_cli.cli.views.progress.counts_table import show_counts

    show_counts(console, preview)
    console.print()
    is_unicode = console.encoding.startswith("utf")
    _show_indented(
        console,
        histogram("tokens per dialogue", preview.tokens_per_dialogue, is_unicode=is_unicode),
    )
    for shown in preview.shown:
        _show_example(console, shown)


def _show_example(console: Console, shown: ShownExample) -> None:
    """Print the text that the model reads, one row for each stretch of targets or context."""
    num_tokens = sum(len(stretch.ids) for stretch in shown.stretches)
    num_targets = sum(len(stretch.ids) for stretch in shown.stretches if stretch.target != "none")
    print_line(
        console,
        f"{shown.where}  {counted(num_tokens, 'token')}, {counted(num_targets, 'target')}",
        "bold",
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(ratio=3, overflow="fold")
    table.add_column(ratio=2, overflow="fold")
    for stretch in shown.stretches:
        target = "context" if stretch.target == "none" else stretch.target
        ids = " ".join(map(str, stretch.ids))
        table.add_row(
            target, Text(printable(stretch.text)), ids, style=_TARGET_STYLES[stretch.target]
        )
    console.print(Padding(table, (0, 0, 0, 2)))
    console.print()


def _show_file(console: Console, file: FileReport) -> None:
    print_line(console, file.file, "bold")
    facts = Table.grid(padding=(0, 2))
    facts.add_column()
    facts.add_column(justify="right", no_wrap=True)
    facts.add_column(style="dim", overflow="fold", min_width=1)
    for name, number, note in _facts(file):
        facts.add_row(name, f"{number:,}", Text(printable(note).replace("\n", " ") or " "))
    _show_indented(console, facts)
    if file.turns_per_dialogue and file.characters_per_dialogue:
        sides = Table.grid(padding=(0, 4))
        is_unicode = console.encoding.startswith("utf")
        sides.add_row(
            histogram("turns per dialogue", file.turns_per_dialogue, is_unicode=is_unicode),
            histogram(
                "characters per dialogue", file.characters_per_dialogue, is_unicode=is_unicode
            ),
        )
        _show_indented(console, sides)


def _facts(file: FileReport) -> Iterator[tuple[str, int, str]]:
    """Yield name, number and note of every row; rows that are usually zero appear only if not."""
    total = file.num_dialogues
    yield "dialogues", total, _names(file.shapes) if len(file.shapes) > 1 else "".join(file.shapes)
    yield (
        "turns",
        file.num_turns,
        _names({role: count for role, count in file.num_turns_by_role.items() if count}),
    )
    if num_tool_turns := file.num_tool_calls + file.num_tool_results:
        calls = counted(file.num_tool_calls, "turn")
        results = counted(file.num_tool_results, "result")
        note = f"{calls} with calls and {results} are context, never targets"
        yield "tool calls", num_tool_turns, f"{note}; the model's chat template must know tools"
    yield "characters", file.num_characters, ", ".join(_shares(file.scripts))
    if stripped := file.num_stripped_texts:
        share = _share(stripped, file.num_turns)
        yield "stripped texts", stripped, f"white space at an end is removed ({share})"
    yield "end on a user turn", file.num_ending_on_user, _share(file.num_ending_on_user, total)
    seldom = (
        ("one role twice in a row", file.num_with_same_role_in_a_row),
        ("only one turn", file.num_one_turn),
        ("no assistant turn", file.num_without_assistant),
        ("duplicates", file.num_duplicates),
    )
    for name, number in seldom:
        if number:
            yield name, number, _share(number, total)
    if file.num_excluded:
        yield "dialogues left out", file.num_excluded, '"train": false'
    if number := file.num_untrained_turns:
        yield "turns not trained on", number, f'"train": false ({_share(number, file.num_turns)})'
    if file.num_reasoning_turns:
        yield (
            "turns with reasoning",
            file.num_reasoning_turns,
            "kept" if file.reasoning == "keep" else "dropped",
        )
    if number := file.num_turns_with_references:
        yield "turns with references", number, "for evaluations"
    if file.unread_keys:
        yield "ignored keys", sum(file.unread_keys.values()), _names(file.unread_keys)


def _show_problems(console: Console, groups: Iterable[tuple[str, ProblemGroup]]) -> None:
    by_code: dict[str, list[tuple[str, ProblemGroup]]] = {}
    for origin, group in groups:
        by_code.setdefault(group.code, []).append((origin, group))
    for code, parts in sorted(by_code.items(), key=lambda item: item[1][0][1].severity != "error"):
        first = parts[0][1]
        head = Text(f"{first.severity} ", style=_STYLES[first.severity])
        count = _num_problems(group for _, group in parts)
        console.print(
            head.append(code, style="bold").append(f"  {count:,}", style="default"), soft_wrap=True
        )
        for origin, group in parts:
            for problem in group.problems:
                place = f"{problem.file}:{problem.line}:{problem.column} {problem.path}"
                print_line(console, f"  {place}  {problem.message}")
            if left := group.count - len(group.problems):
                print_line(
                    console, f"  {left:,} {'more ' if group.problems else ''}in {origin}", "dim"
                )
        print_line(console, f"  hint: {first.hint}", "dim")
        console.print()


def _show_verdict(console: Console, report: DataReport, refused: Sequence[ProblemGroup]) -> None:
    num_dialogues = sum(file.num_dialogues for file in report.files)
    num_errors = report.num_errors + _num_problems(refused)
    warnings = f", {counted(report.num_warnings, 'warning')}" if report.num_warnings else ""
    if num_errors:
        print_line(console, f"not trainable: {counted(num_errors, 'error')}{warnings}", "bold red")
    else:
        print_line(
            console,
            f"ok: {counted(num_dialogues, 'dialogue')} can be trained on{warnings}",
            "green",
        )


def _num_problems(groups: Iterable[ProblemGroup]) -> int:
    return sum(group.count for group in groups)


def _show_indented(console: Console, table: Table) -> None:
    console.print(Padding(table, (0, 0, 0, 2), expand=False))
    console.print()


def _num_dialogues(report: DataReport, name: str) -> int:
    return next(file.num_dialogues for file in report.files if file.file == name)


def _names(counts: Mapping[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:_MAX_NAMES]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f", {more} more" if more else "")


def _shares(shares: Mapping[str, float]) -> list[str]:
    return [f"{name} {_percent(share)}" for name, share in list(shares.items())[:_MAX_NAMES]]


def _share(number: int, total: int) -> str:
    return _percent(number / total) if total else ""


def _percent(share: float) -> str:
    return "<1%" if 0 < share < 0.01 else f"{share:.0%}"
