"""The `convo validate-data` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convo_cli.cli.options import JsonOption, QuietOption, ReasoningOption, SetOption, within
from convo_cli.errors import DataError, UsageError, typeable

if TYPE_CHECKING:
    from convo_cli.cli.chosen_data import ChosenData
    from convo_cli.config.schema import RunConfig
    from convo_cli.data.checks.problem_tally import ProblemGroup
    from convo_cli.data.repair.repairs import RepairReport
    from convo_cli.prepare.preview import Preview


def validate_data(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="JSONL files (.jsonl, .gz, .zst), or - for stdin."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="Check with this config as `train` does; without FILE, check the config's data.",
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            metavar="MODEL",
            help="Count tokens with the tokenizer of a model folder or hub id.",
        ),
    ] = None,
    show_tokens: Annotated[
        int,
        typer.Option(
            "--show-tokens",
            callback=within(0),
            metavar="N",
            help="Show text, ids and targets of the first N examples.",
        ),
    ] = 0,
    fix: Annotated[
        Path | None,
        typer.Option(
            "--fix",
            metavar="OUT",
            help="Write the repaired dialogues to this file, and check it.",
        ),
    ] = None,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Let --fix replace an existing file.")
    ] = False,
    first_speaker: Annotated[
        Literal["user", "assistant"] | None,
        typer.Option(
            "--first-speaker", help="The first speaker of a dialogue that is a plain list of texts."
        ),
    ] = None,
    reasoning: ReasoningOption = None,
    overrides: SetOption = None,
    max_problems: Annotated[
        int,
        typer.Option(
            "--max-problems",
            callback=within(0),
            metavar="N",
            help="Problems listed per kind and file; all are counted.",
        ),
    ] = 5,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Report what the files contain, and every problem with its line, column and path.

    The exit code is 0 if the files can be trained on, even with warnings, and 3 if not. With --fix
    it is 0 if every line could be repaired, and the report describes the written file.

    Example: convo validate-data train.jsonl valid.jsonl
    """
    from convo_cli.cli.arguments import require_new_file
    from convo_cli.cli.chosen_data import choose_data
    from convo_cli.cli.config_paths import placing_missing_model
    from convo_cli.cli.streams import require_stdin
    from convo_cli.data.reader import check_source

    choices = {"first_speaker": first_speaker, "reasoning": reasoning}
    chosen = choose_data(files or [], config, tokenizer, overrides or ())
    chosen = chosen.changed({key: choice for key, choice in choices.items() if choice is not None})
    if show_tokens and chosen.run_config is None:
        raise UsageError(
            "--show-tokens needs a tokenizer", hint="add --config config.yaml or --tokenizer MODEL"
        )
    is_read_again = chosen.run_config is not None or fix is not None
    for path in chosen.paths:
        if path == "-":
            require_stdin("there is no data to read")
        check_source(path, is_read_again=is_read_again)
    if fix is not None:
        require_new_file(
            fix, chosen.paths, option="--fix", example="fixed.jsonl", is_forced=is_forced
        )

    from convo_cli.cli.console import print_json, stdout_console
    from convo_cli.cli.views.data_view import as_record, show_report
    from convo_cli.cli.views.progress.reporter import make_file_progress
    from convo_cli.data.checks.validate import validate_files
    from convo_cli.storage.snapshot import Snapshot

    repaired: RepairReport | None = None
    if fix is not None:
        with placing_missing_model(chosen.located):
            repaired = _fix(chosen, fix, max_problems, is_quiet=is_quiet)
        chosen = chosen.of([str(fix)])
    before = [Snapshot.of(Path(path)) for path in chosen.paths]
    with make_file_progress(chosen.paths, is_quiet=is_quiet) as emit:
        report = validate_files(
            chosen.paths,
            chosen.data_config,
            train_on=chosen.train_on,
            max_problems=max_problems,
            emit=emit,
        )
    preview: Preview | None = None
    refused: tuple[ProblemGroup, ...] = ()
    if report.is_trainable and chosen.run_config is not None:
        with placing_missing_model(chosen.located):
            preview, refused = _preview(
                chosen.run_config, chosen.cache_home, show_tokens, max_problems, is_quiet=is_quiet
            )
    for read in before:
        read.require_unchanged()

    if as_json:
        print_json("validate-data", as_record(report, preview, refused, repaired))
    else:
        given = {"--config": config, "--tokenizer": tokenizer, "--first-speaker": first_speaker}
        given |= {"--reasoning": reasoning}
        pairs = [(key, str(value)) for key, value in given.items() if value is not None]
        pairs += [("--set", setting) for setting in overrides or ()]
        options = "".join(f" {key} {typeable(value)}" for key, value in pairs)
        show_report(
            stdout_console(), report, preview, refused, repaired, is_quiet=is_quiet, options=options
        )
    if refused or not report.is_trainable or (repaired is not None and repaired.num_left_out):
        raise typer.Exit(DataError.exit_code)


def _fix(chosen: ChosenData, out: Path, max_problems: int, *, is_quiet: bool) -> RepairReport:
    from convo_cli.cli.views.progress.reporter import make_file_progress
    from convo_cli.prepare.fix import fix_files

    with make_file_progress(chosen.paths, is_quiet=is_quiet) as emit:
        return fix_files(
            chosen.paths,
            out,
            chosen.data_config,
            train_on=chosen.train_on,
            max_problems=max_problems,
            emit=emit,
            run_config=chosen.run_config,
        )


def _preview(
    config: RunConfig, cache_home: Path | None, num_shown: int, max_problems: int, *, is_quiet: bool
) -> tuple[Preview | None, tuple[ProblemGroup, ...]]:
    """Return the preview of training on the data, or the problems for which `train` refuses it."""
    from convo_cli.cli.console import stderr_console
    from convo_cli.cli.views.progress.reporter import make_progress
    from convo_cli.prepare.preflight import PreflightError
    from convo_cli.prepare.preview import preview

    try:
        with make_progress(stderr_console(), is_quiet=is_quiet) as emit:
            return preview(
                config, emit, home=cache_home, max_problems=max_problems, num_shown=num_shown
            ), ()
    except PreflightError as error:
        return None, error.groups
