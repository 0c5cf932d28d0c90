"""The `convo evaluate` command."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from convo_cli.errors import (
    ConvoError,
    DataError,
    FileChangedError,
    StoppedError,
    UsageError,
)

if TYPE_CHECKING:
    from convo_cli.cli.views.evaluation.evaluation_view import Evaluated, Failed
    from convo_cli.config.schema import DataConfig
    from convo_cli.events import Emit
    from convo_cli.runs.selection import Which


def _num_replies(value: Any) -> int:
    """Return the number of turns to answer; `all` becomes more than any file has."""
    if value == "all":
        return sys.maxsize
    try:
        return int(value)
    except ValueError:
        raise typer.BadParameter("give a whole number, such as 100, or all") from None


@dataclass(frozen=True)
class _Options:
    """How each model is scored."""

    num_replies: int
    max_new_tokens: int
    device: str
    has_given_data: bool
    """False if the data is data.test of the run."""
    is_alone: bool
    """True for a single model."""


def evaluate(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL… [DATA…]",
            help="Exports, run directories, checkpoints or hub ids, then JSONL files of dialogues. "
            "Default for DATA: data.test of the run.",
        ),
    ],
    load: LoadOption = None,
    replies: Annotated[
        int,
        typer.Option(
            metavar="N or all",
            parser=_num_replies,
            callback=within(0),
            help="How many assistant turns get a generated reply, from the first on; 0: none.",
        ),
    ] = 100,
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", callback=within(1), help="Tokens of the longest reply.")
    ] = 64,
    samples: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write each answered turn here, with its history, the real reply and the replies "
            "of all models (JSONL).",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    reasoning: ReasoningOption = None,
    overrides: SetOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Score models by the loss of the real replies, and by their own replies to the same turns.

    Folders and hub ids are models, files are data. Several models are scored side by side.
    Without DATA, a run or a checkpoint is scored on data.test of its config.
    The data is read with the settings of the models' runs, for other models with the defaults.

    Example: convo evaluate exports/convo test.jsonl
    """
    from convo_cli.cli.arguments import require_device, require_good_data, require_new_file
    from convo_cli.cli.chosen_data import checkpoint_options, data_config_of
    from convo_cli.cli.console import announce, print_json, stderr_console, stdout_console
    from convo_cli.cli.given_paths import require_model, split_models_and_data
    from convo_cli.data.reader import check_source
    from convo_cli.text.bounded.client import start_bounded_process

    require_device(device)
    models, files = split_models_and_data(paths)
    chosen = checkpoint_options(models, load)
    for model in models:
        require_model(model, chosen[model])
    data_config = data_config_of(models, files, reasoning, overrides or ())
    for path in data_config.train:
        if path == "-":
            raise UsageError(
                "evaluate reads its data twice, so stdin cannot be used", hint="give a file"
            )
        check_source(path, is_read_again=True)
    if samples is not None:
        if not replies:
            raise UsageError("--samples writes replies, but --replies is 0", hint="--replies 100")
        require_new_file(
            samples,
            [*models, *data_config.train],
            option="--samples",
            example="samples.jsonl",
            is_forced=force,
        )
    names = ", ".join(models)
    announce(f"evaluating {names} (loading PyTorch takes a few seconds)", is_quiet=is_quiet)
    require_good_data(data_config, what="the data cannot be read", train_on=None)
    start_bounded_process()

    from convo_cli.cli.views.evaluation.evaluation_view import Failed, as_record, show_scores
    from convo_cli.cli.views.evaluation.reply_samples import write_samples
    from convo_cli.cli.views.progress.reporter import make_progress

    options = _Options(replies, max_new_tokens, device, bool(files), len(models) == 1)
    found: list[Evaluated | Failed] = []
    with make_progress(stderr_console(), is_quiet=is_quiet) as emit:
        for model in models:
            found.append(_score(model, chosen[model], data_config, options, found, emit))
    try:
        if as_json:
            print_json("evaluate", as_record(found))
        else:
            show_scores(stdout_console(), found)
    finally:  # also if nothing reads stdout any more
        if samples is not None:
            write_samples(samples, found)
    if failed := [one.error for one in found if isinstance(one, Failed)]:
        raise typer.Exit(failed[0].exit_code)


def _score(
    model: str,
    load: Which | None,
    data: DataConfig,
    options: _Options,
    earlier: Sequence[Evaluated | Failed],
    emit: Emit,
) -> Evaluated | Failed:
    """Score one model; if it fails and is one of several, return the failure."""
    from convo_cli.cli.arguments import note_longest_reply
    from convo_cli.cli.views.evaluation.evaluation_view import Evaluated, Failed
    from convo_cli.evaluation.cautions import cautions_about
    from convo_cli.evaluation.finished.model_scoring import score_model
    from convo_cli.events import Notice
    from convo_cli.model.open import open_generator

    try:
        generator = open_generator(model, device=options.device, emit=emit, which=load)
        if options.num_replies:
            note_longest_reply(generator, options.max_new_tokens, emit)
        scores = score_model(
            generator,
            data,
            num_replies=options.num_replies,
            max_new_tokens=options.max_new_tokens,
            emit=emit,
        )
    except (StoppedError, DataError, FileChangedError):
        raise  # these concern the data, which is the same for all models
    except ConvoError as error:
        if options.is_alone:
            raise
        emit(Notice(f"{model}: not scored: {error.message}", is_warning=True))
        return Failed(model, error)
    finally:
        gc.collect()  # frees the model before the next one is loaded
    first = next((one for one in earlier if isinstance(one, Evaluated)), None)
    if first is not None and first.scores.files != scores.files:
        raise FileChangedError(
            "the data changed while the models were scored, so their scores cannot be compared",
            hint="wait until nothing writes to the files, or use copies of them",
        )
    loaded = generator.loaded
    expected = () if loaded is None or options.has_given_data else loaded.info.test
    trained_on = () if loaded is None else loaded.info.train
    cautions = cautions_about(scores.result, scores.files, trained_on, expected)
    return Evaluated(model, generator.folder, loaded, scores, cautions)
