"""The `convo report` command."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convo_cli.cli.options import JsonOption, QuietOption
from convo_cli.errors import DiskError, UsageError, typeable

if TYPE_CHECKING:
    from convo_cli.report.comparing.comparison import Comparison
    from convo_cli.report.comparing.members import Member


def report(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN…",
            help="A run directory; several are compared, also with checkpoints and exports.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the page here. Default: report.html in the run; none for a comparison.",
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also compare the scores in this file, the output of convo evaluate --json.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Write the report page of a run: data, config, curves, scores, replies, and what to do next.

    The page is one HTML file without scripts. Training also writes it, at every evaluation.
    Several runs are compared in the terminal, and with -o also on a page.

    Example: convo report runs/convo
    """
    from convo_cli.cli.arguments import require_new_file
    from convo_cli.cli.console import announce
    from convo_cli.report.comparing.comparison import compare
    from convo_cli.report.comparing.members import open_members
    from convo_cli.report.comparing.saved_scores import read_scores

    members = open_members(models)
    if len(members) == 1 and members[0].kind != "run":
        kind = "a checkpoint" if members[0].kind == "checkpoint" else "a model without a run"
        run = members[0].run
        hint = "give its run directory, or several models to compare them"
        if run is not None:
            around = (path for path in Path(models[0]).parents if path.resolve() == run.run.path)
            hint = f"convo report {typeable(next(around, run.run.path))}"
        raise UsageError(f"{models[0]}: {kind}; only a run has a report page", hint=hint)
    if len(members) == 1 and scores is not None:
        raise UsageError("--scores needs several models", hint="give several runs or models")
    saved = None if scores is None else read_scores(scores, members)
    if output is not None:
        require_new_file(output, models, example="report.html", is_forced=force)
    for member in members:
        for problem in member.run.problems if member.run else ():
            announce(f"warning: {member.source}: {problem}", is_quiet=False)
    if len(members) == 1:
        _show_run(members[0], output, as_json=as_json, is_quiet=is_quiet)
    else:
        _compare(compare(members, saved), output, as_json=as_json)


def _show_run(member: Member, output: Path | None, *, as_json: bool, is_quiet: bool) -> None:
    from convo_cli.cli.console import print_json, stdout_console
    from convo_cli.report.page import write_run_page

    assert member.run is not None
    try:
        with _private(output, [member]):
            page = write_run_page(member.run, output)
    except DiskError as error:
        if output is not None:
            raise
        hint = "write the page elsewhere with -o FILE; the earlier page, if any, is intact"
        raise DiskError(error.message, hint=hint) from error
    if as_json:
        from convo_cli.report.comparing.comparison import compare
        from convo_cli.report.comparing.comparison_record import as_record

        print_json("report", {"page": str(page), **as_record(compare([member]))})
    else:
        from convo_cli.cli.views.results.report_view import show_run

        show_run(stdout_console(), member.run, page, is_quiet=is_quiet)


def _compare(comparison: Comparison, output: Path | None, *, as_json: bool) -> None:
    from convo_cli.cli.console import print_json, stdout_console
    from convo_cli.cli.views.results.comparison_view import show_comparison
    from convo_cli.report.comparing.comparison_page import write_comparison
    from convo_cli.report.comparing.comparison_record import as_record

    if output is not None:
        with _private(output, comparison.members):
            write_comparison(comparison, output)
    if as_json:
        page = None if output is None else str(output)
        print_json("report", {"page": page, **as_record(comparison)})
    else:
        show_comparison(stdout_console(), comparison, output)


def _private(output: Path | None, members: Sequence[Member]) -> AbstractContextManager[None]:
    """Return a context in which ``output`` is readable only by those who may read the logs."""
    from convo_cli.storage.access import derived_mode, masked

    if output is None:
        return nullcontext()
    logs = [member.run.run.metrics for member in members if member.run]
    return masked(derived_mode(logs, output.parent))
