"""`convo resume`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from convo_cli.cli.options import JsonOption, QuietOption, SetOption


def resume(
    run_dir: Annotated[Path, typer.Argument(help="Run directory made by `convo train`.")],
    load: Annotated[
        Literal["last", "loss", "metric"],
        typer.Option(help="The newest checkpoint, or the best by validation loss or metric."),
    ] = "last",
    overrides: SetOption = None,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Go on with a run exactly where a checkpoint stands.

    Example: convo resume runs/convo --load last --set training.max_steps=1000
    """
    from convo_cli.config.load import apply_overrides, load_config
    from convo_cli.data.reader import check_source
    from convo_cli.runs.layout import existing_run

    run_config = apply_overrides(load_config(existing_run(run_dir).config), overrides or ())
    for path in (*run_config.data.train, *run_config.data.validation):
        check_source(path)

    from convo_cli.cli.run_view import watched
    from convo_cli.training.run import resume_run

    with watched(run_config, run_dir, is_quiet=is_quiet, as_json=as_json, command="resume") as (report, finish):
        finish(resume_run(run_dir, load, run_config, report))
