"""The `convo report` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convo_cli.cli.options import JsonOption, QuietOption
from convo_cli.errors import UsageError, typeable


def report(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN…",
            help="A run directory; several to compare them, also with checkpoints and exports.",
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
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Write the page of a run: data, config, curves, scores, replies and what to do next.

    The page is one HTML file without scripts. Training writes it too, at every evaluation.
    Several runs are compared in the terminal, and with -o also on a page.

    Example: convo report runs/convo
    """
    from convo_cli.cli.arguments import require_new_file
    from convo_cli.cli.console import print_json, stderr_console, stdout_console
    from convo_cli.cli.views.results.report_view import (
        note_problems,
        record_of_run,
        show_comparison,
        show_run,
    )
    from convo_cli.report.comparing.comparison import as_record, compare
    from convo_cli.report.comparing.comparison_page import write_comparison
    from convo_cli.report.comparing.members import open_members
    from convo_cli.report.page import write_run_page
    from convo_cli.storage.access import derived_mode, masked

    members = open_members(models)
    if len(members) == 1 and members[0].kind != "run":
        kind = "a checkpoint" if members[0].kind == "checkpoint" else "a model without a run"
        run = members[0].run
        hint = "give its run directory, or several models to compare them"
        if run is not None:
            hint = f"convo report {typeable(run.run.path)}"
        raise UsageError(f"{models[0]}: {kind}, so there is no page of it", hint=hint)
    if output is not None:
        require_new_file(output, models, option="-o", is_forced=force)
    note_problems(stderr_console(), members)
    if len(members) == 1 and members[0].run is not None:
        run_dir = members[0].run.run
        with masked(derived_mode([run_dir.metrics], output.parent) if output else 0o777):
            written = write_run_page(run_dir, out=output)
        if as_json:
            print_json("report", record_of_run(members[0], written.path))
        else:
            show_run(stdout_console(), written, is_quiet=is_quiet)
        return
    comparison = compare(members)
    if output is not None:
        sources = [one.run.run.metrics for one in members if one.run]
        with masked(derived_mode(sources, output.parent)):
            write_comparison(comparison, output)
    if as_json:
        page = None if output is None else str(output)
        print_json("report", {"page": page, **as_record(comparison)})
    else:
        show_comparison(stdout_console(), comparison, output)
