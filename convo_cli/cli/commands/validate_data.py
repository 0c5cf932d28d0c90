"""`convo validate-data`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from convo_cli.cli.options import JsonOption, QuietOption, ReasoningOption
from convo_cli.errors import DataError, UsageError
from convo_cli.events import Emit

if TYPE_CHECKING:
    from convo_cli.config.schema import DataConfig, RunConfig, TrainOn
    from convo_cli.data.checks.report import ProblemGroup
    from convo_cli.data.repair.repairs import RepairReport
    from convo_cli.prepare.preview import Preview

_NO_LIMIT = 1_048_576
"""Tokens of a window where only a tokenizer is given: its model's context may be anything."""
_PROGRESS_BYTES = 8 * 2**20
"""Files smaller than this together are read before a progress bar could be looked at."""


def validate_data(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="JSONL files (.jsonl, .gz, .zst), or - for stdin.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Run this config's pre-flight too, on its own files where none is given."),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", metavar="MODEL", help="Count the tokens of this model folder or hub id."),
    ] = None,
    show_tokens: Annotated[
        int,
        typer.Option("--show-tokens", min=0, metavar="N", help="Show text, ids and targets of the first N examples."),
    ] = 0,
    fix: Annotated[
        Path | None,
        typer.Option("--fix", metavar="OUT", help="Write what can be trained on, repaired, to this file and check it."),
    ] = None,
    is_forced: Annotated[bool, typer.Option("--force", help="Let --fix replace a file.")] = False,
    first_speaker: Annotated[
        Literal["user", "assistant"] | None,
        typer.Option("--first-speaker", help="Who begins a dialogue that is a plain list of texts."),
    ] = None,
    reasoning: ReasoningOption = None,
    max_problems: Annotated[
        int, typer.Option("--max-problems", min=0, help="Problems listed per kind and file; all are counted.")
    ] = 5,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Report what is in the files, and every problem with its line, column and path.

    Example: convo validate-data train.jsonl valid.jsonl

    The exit code is 0 if the files can be trained on (warnings do not count), 3 if not. With --fix it is 0 if every
    line could be repaired, and the report is about the written file.
    """
    changes = {"first_speaker": first_speaker, "reasoning": reasoning}
    inputs = _inputs(
        files or [], config, tokenizer, {key: value for key, value in changes.items() if value is not None}
    )
    if show_tokens and inputs.run_config is None:
        raise UsageError("--show-tokens needs a tokenizer", hint="add --config config.yaml or --tokenizer MODEL")

    from convo_cli.data.reader import check_source

    is_read_again = config is not None or tokenizer is not None or fix is not None
    for path in inputs.paths:
        check_source(path, is_read_again=is_read_again)

    repaired: RepairReport | None = None
    if fix is not None:
        from convo_cli.cli.commands.fix_data import fix_files, require_new_file

        require_new_file(fix, inputs.paths, is_forced=is_forced)
        with _progress(inputs.paths, is_quiet=is_quiet) as emit:
            repaired = fix_files(
                inputs.paths, fix, inputs.data_config, inputs.train_on, max_problems, emit, inputs.run_config
            )
        inputs = inputs.of([str(fix)])

    from convo_cli.data.checks.validate import validate_files
    from convo_cli.storage.snapshot import Snapshot

    paths, data_config, train_on = inputs.paths, inputs.data_config, inputs.train_on
    before = [Snapshot.of(Path(path)) for path in paths]
    with _progress(paths, is_quiet=is_quiet) as emit:
        result = validate_files(paths, data_config, train_on=train_on, max_problems=max_problems, emit=emit)
    preview: Preview | None = None
    refused: tuple[ProblemGroup, ...] = ()
    if inputs.run_config is not None and result.is_trainable:
        preview, refused = _preview(inputs, show_tokens, max_problems, is_quiet=is_quiet)
    for read in before:
        read.require_unchanged()

    if as_json:
        from convo_cli.cli.console import print_json
        from convo_cli.cli.views.data_view import as_record

        print_json("validate-data", as_record(result, preview, refused, repaired))
    else:
        from convo_cli.cli.console import stdout_console
        from convo_cli.cli.views.data_view import show_report

        if repaired is not None:
            from convo_cli.cli.commands.fix_data import show_repairs

            has_reasoning = any(file.num_reasoning_turns for file in result.files)
            show_repairs(stdout_console(), repaired, paths[0], data_config.reasoning if has_reasoning else None)
        show_report(stdout_console(), result, preview, refused, is_quiet=is_quiet)
    if refused or not result.is_trainable or (repaired is not None and repaired.num_left_out):
        raise typer.Exit(DataError.exit_code)


class _Inputs(NamedTuple):
    """The files to check, how to read them, whose turns are targets, and the run they are for, where that is known."""

    paths: list[str]
    data_config: DataConfig
    train_on: TrainOn
    run_config: RunConfig | None
    cache_home: Path | None

    def of(self, files: list[str]) -> _Inputs:
        """The same for other files."""
        data_config = self.data_config.model_copy(update={"train": tuple(files), "validation": ()})
        run_config = self.run_config and self.run_config.model_copy(update={"data": data_config})
        return self._replace(paths=files, data_config=data_config, run_config=run_config)


def _inputs(
    files: list[str],
    config: Path | None,
    tokenizer: str | None,
    changes: Mapping[str, str],
) -> _Inputs:
    """``changes`` are the keys of the data config that options set."""
    if config is None and not files:
        raise UsageError("no file to check", hint="convo validate-data train.jsonl")
    if config is not None and tokenizer is not None:
        raise UsageError("--config and --tokenizer both name a tokenizer", hint="give one of them")
    for pipe in (file for file in files if file == "-" or Path(file).is_fifo()):
        if files.count(pipe) > 1:
            raise UsageError(f"{pipe} is given twice, but {'stdin' if pipe == '-' else 'a pipe'} can be read only once")
    if "-" in files and (config or tokenizer):
        raise UsageError("stdin is read once, and tokens are counted in a second pass", hint="write it to a file first")

    from convo_cli.config.load import build_config, load_config
    from convo_cli.config.schema import DataConfig

    if config is not None:
        run_config = load_config(config)
    elif tokenizer is not None:
        from convo_cli.cli.arguments import require_pretrained

        require_pretrained(tokenizer)
        values = {
            "data": {"train": files},
            "model": {"pretrained": tokenizer},
            "dialogue": {"max_length": _NO_LIMIT},
            "training": {"max_steps": 1},
        }
        run_config = build_config(values, "--tokenizer")
    else:
        run_config = None
    data_config = DataConfig(train=tuple(files)) if run_config is None else run_config.data
    if files:
        data_config = data_config.model_copy(update={"train": tuple(files), "validation": ()})
    data_config = data_config.model_copy(update=changes)
    paths = [*data_config.train, *data_config.validation]
    if run_config is None:
        return _Inputs(paths, data_config, "assistant", None, None)
    run_config = run_config.model_copy(update={"data": data_config})
    home = Path(run_config.output_dir) if config else None
    return _Inputs(paths, data_config, run_config.dialogue.train_on, run_config, home)


def _preview(
    inputs: _Inputs, num_shown: int, max_problems: int, *, is_quiet: bool
) -> tuple[Preview | None, tuple[ProblemGroup, ...]]:
    """What `train` would make of the data, or why it would refuse it."""
    from convo_cli.cli.console import stderr_console
    from convo_cli.cli.views.progress import make_progress
    from convo_cli.prepare.preflight import PreflightError
    from convo_cli.prepare.preview import preview

    assert inputs.run_config is not None, "asked for only where there is one"
    try:
        with make_progress(stderr_console(), is_quiet=is_quiet, log_every=1, show_samples=0) as emit:
            made = preview(
                inputs.run_config, emit, home=inputs.cache_home, max_listed=max_problems, num_shown=num_shown
            )
    except PreflightError as error:
        return None, error.groups
    return made, ()


@contextmanager
def _progress(paths: list[str], *, is_quiet: bool) -> Iterator[Emit]:
    """A reporter that draws a bar on a terminal for files that take long."""
    from convo_cli.cli.console import stderr_console

    console = stderr_console()
    num_bytes = sum(Path(path).stat().st_size for path in paths if Path(path).is_file())
    if is_quiet or num_bytes < _PROGRESS_BYTES or not console.is_terminal:
        yield lambda event: None
        return
    from convo_cli.cli.views.progress import make_progress

    with make_progress(console, is_quiet=is_quiet, log_every=1, show_samples=0) as emit:
        yield emit
