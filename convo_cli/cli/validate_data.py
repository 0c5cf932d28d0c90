"""`convo validate-data`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convo_cli.cli.options import JsonOption, QuietOption
from convo_cli.errors import DataError, UsageError
from convo_cli.events import Report

if TYPE_CHECKING:
    from convo_cli.config.schema import DataConfig, TrainOn

_PROGRESS_BYTES = 8 * 2**20
"""Files smaller than this together are read before a progress bar could be looked at."""


def validate_data(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="JSONL files (.jsonl, .gz, .zst), or - for stdin.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Take speaker names from this config, and its files where none is given."),
    ] = None,
    first_speaker: Annotated[
        Literal["user", "assistant"] | None,
        typer.Option("--first-speaker", help="Who begins a dialogue that is a plain list of texts."),
    ] = None,
    max_problems: Annotated[
        int, typer.Option("--max-problems", min=0, help="Problems listed per kind and file; all are counted.")
    ] = 5,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Report what is in the files, and every problem with its line, column and path.

    Example: convo validate-data train.jsonl valid.jsonl

    The exit code is 0 if the files can be trained on (warnings do not count), 3 if not.
    """
    paths, data_config, train_on = _inputs(files or [], config, first_speaker)

    from convo_cli.data.validate import validate_files

    with _progress(paths, is_quiet=is_quiet) as report:
        result = validate_files(paths, data_config, train_on=train_on, max_problems=max_problems, report=report)

    if as_json:
        from convo_cli.cli.console import print_json
        from convo_cli.cli.data_view import as_record

        print_json("validate-data", as_record(result))
    else:
        from convo_cli.cli.console import stdout_console
        from convo_cli.cli.data_view import show_report

        show_report(stdout_console(), result, is_quiet=is_quiet)
    if not result.is_trainable:
        raise typer.Exit(DataError.exit_code)


def _inputs(
    files: list[str], config: Path | None, first_speaker: Literal["user", "assistant"] | None
) -> tuple[list[str], DataConfig, TrainOn]:
    """The files to check, how to read them, and whose turns are to be learnt."""
    train_on: TrainOn = "assistant"
    if config is None and not files:
        raise UsageError("no file to check", hint="convo validate-data train.jsonl")
    if files.count("-") > 1:
        raise UsageError("- is given twice, stdin can be read once")

    if config is None:
        from convo_cli.config.schema import DataConfig

        data_config = DataConfig(train=tuple(files))
    else:
        from convo_cli.config.load import load_config

        run_config = load_config(config)
        data_config, train_on = run_config.data, run_config.dialogue.train_on
        files = files or [*data_config.train, *data_config.validation]
    if first_speaker is not None:
        data_config = data_config.model_copy(update={"first_speaker": first_speaker})
    return files, data_config, train_on


@contextmanager
def _progress(paths: list[str], *, is_quiet: bool) -> Iterator[Report]:
    """A reporter that draws a bar where somebody watches and has to wait."""
    from convo_cli.cli.console import stderr_console

    console = stderr_console()
    num_bytes = sum(Path(path).stat().st_size for path in paths if Path(path).is_file())
    if is_quiet or num_bytes < _PROGRESS_BYTES or not console.is_terminal:
        yield lambda event: None
        return
    from convo_cli.cli.progress import make_progress

    with make_progress(console, is_quiet=is_quiet, log_every=1, show_samples=0) as report:
        yield report
