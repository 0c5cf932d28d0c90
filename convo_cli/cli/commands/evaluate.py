"""The `convo evaluate` command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convo_cli.cli.options import (
    DeviceOption,
    JsonOption,
    LoadOption,
    QuietOption,
    ReasoningOption,
    SetOption,
    within,
)
from convo_cli.errors import UsageError, typeable

if TYPE_CHECKING:
    from convo_cli.config.schema import DataConfig


def evaluate(
    model: Annotated[
        str, typer.Argument(help="An export, a run directory, a checkpoint, or a hub id.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA", help="JSONL files of dialogues. Default: data.test of the run."
        ),
    ] = None,
    load: LoadOption = None,
    replies: Annotated[
        int,
        typer.Option(
            metavar="N", callback=within(0), help="Dialogues that get a generated reply; 0: none."
        ),
    ] = 100,
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", callback=within(1), help="Tokens of the longest reply.")
    ] = 64,
    reasoning: ReasoningOption = None,
    overrides: SetOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Score a model: the loss of the real replies, and the model's own replies against them.

    Without DATA, a run or a checkpoint is scored on the data.test of its config.
    The data is read with the settings of the model's run. For other models, the defaults apply.

    Example: convo evaluate exports/convo test.jsonl
    """
    from convo_cli.cli.arguments import note_longest_reply, require_device, require_good_data
    from convo_cli.cli.console import announce
    from convo_cli.cli.given_paths import require_model
    from convo_cli.data.reader import check_source
    from convo_cli.text.bounded.client import start_bounded_process

    require_device(device)
    require_model(model, load)
    data_config = _data_config(model, data or (), reasoning, overrides or ())
    for path in data_config.train:
        if path == "-":
            raise UsageError(
                "evaluate reads its data twice, so stdin cannot be used", hint="give a file"
            )
        check_source(path, is_read_again=True)
    announce(f"evaluating {model} (loading PyTorch takes a few seconds)", is_quiet=is_quiet)
    require_good_data(data_config, what="the data cannot be read", train_on=None)
    start_bounded_process()

    from convo_cli.cli.console import print_json, stderr_console, stdout_console
    from convo_cli.cli.views.evaluation_view import Evaluated, as_record, show_scores
    from convo_cli.cli.views.progress.reporter import make_progress
    from convo_cli.evaluation.cautions import cautions_about
    from convo_cli.evaluation.evaluator import evaluate_files
    from convo_cli.model.open import open_generator

    with make_progress(stderr_console(), is_quiet=is_quiet) as emit:
        generator = open_generator(model, device=device, emit=emit, which=load)
        if replies:
            note_longest_reply(generator, max_new_tokens, emit)
        result, files = evaluate_files(
            generator, data_config, num_replies=replies, max_new_tokens=max_new_tokens, emit=emit
        )
    loaded = generator.loaded
    evaluated = Evaluated(
        model=model,
        folder=generator.folder,
        loaded=loaded,
        files=files,
        result=result,
        cautions=cautions_about(
            result,
            files,
            () if loaded is None else loaded.info.train,
            () if loaded is None or data else loaded.info.test,
        ),
    )
    if as_json:
        print_json("evaluate", as_record(evaluated))
    else:
        show_scores(stdout_console(), evaluated)


def _data_config(
    model: str,
    files: Sequence[str],
    reasoning: Literal["keep", "drop"] | None,
    overrides: Sequence[str],
) -> DataConfig:
    """Return the data config of the model's run for these files; the defaults for other models.

    Without files, those of the run's ``data.test``; UsageError if there are none.
    """
    from convo_cli.cli.chosen_data import with_overrides
    from convo_cli.config.schema import DataConfig
    from convo_cli.runs.directory import RunDirectory
    from convo_cli.runs.provenance.run_info import read_config

    path = Path(model)
    runs = (RunDirectory(folder) for folder in (path, path.resolve().parent.parent))
    run = next((run for run in runs if run.is_run), None)
    read_as = None if run is None else read_config(run).data
    files = files or (read_as.test if read_as else ())
    if not files:
        what = "not a run with data.test" if run is None else "its run has no data.test"
        raise UsageError(
            f"{model}: {what}, so evaluate needs the data to score",
            hint=f"convo evaluate {typeable(model)} test.jsonl",
        )
    changes = {} if reasoning is None else {"reasoning": reasoning}
    data_config = (read_as or DataConfig(train=tuple(files))).of(files)
    return with_overrides(data_config, overrides).model_copy(update=changes)
