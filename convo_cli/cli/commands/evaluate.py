"""The `convo evaluate` command."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convo_cli.cli.options import (
    BaseOption,
    DeviceOption,
    JsonOption,
    LoadOption,
    QuietOption,
    ReasoningOption,
    SetOption,
    SharedWorkOption,
    all_or_number,
    within,
)
from convo_cli.errors import (
    ConvoError,
    DataError,
    FileChangedError,
    RankLostError,
    StoppedError,
    UsageError,
)

if TYPE_CHECKING:
    from convo_cli.cli.views.evaluation.evaluation_view import Evaluated, Failed
    from convo_cli.config.schema import DataConfig, Devices
    from convo_cli.events import Emit
    from convo_cli.runs.selection import Which
    from convo_cli.world import World


@dataclass(frozen=True)
class _Options:
    """How each model is scored."""

    num_replies: int
    max_new_tokens: int
    device: str
    devices: Devices
    has_given_data: bool
    """False if the data is data.test of the run."""
    is_alone: bool
    """True for a single model."""
    base: str | None


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
    base: BaseOption = None,
    replies: Annotated[
        int,
        typer.Option(
            metavar="N or all",
            parser=all_or_number,
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
    devices: SharedWorkOption = None,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Score models by the loss of the real replies, and by their own replies to the same turns.

    Folders and hub ids are models, files are data. Several models are scored side by side.
    Without DATA, a run or a checkpoint is scored on data.test of its config.
    The data is read with the settings of the models' runs, for other models with the defaults.

    Example: convo evaluate exports/convo test.jsonl
    """
    from convo_cli.cli.arguments import (
        parse_devices,
        require_device,
        require_good_data,
        require_new_file,
    )
    from convo_cli.cli.chosen_data import checkpoint_options, data_config_of
    from convo_cli.cli.console import announce, print_json, stdout_console
    from convo_cli.cli.given_paths import require_model, split_models_and_data
    from convo_cli.data.reader import check_source
    from convo_cli.text.bounded.client import start_bounded_process
    from convo_cli.training.distributed.launcher import launch
    from convo_cli.training.distributed.rank_process import is_launched

    require_device(device)
    chosen_devices = parse_devices(devices, device)
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
    if not is_launched():
        names = ", ".join(models)
        announce(f"evaluating {names} (loading PyTorch takes a few seconds)", is_quiet=is_quiet)
        require_good_data(data_config, what="the data cannot be read", train_on=None)
    code = launch(chosen_devices, device, sys.argv[1:], hint=lambda: "run the command again")
    if code is not None:
        raise typer.Exit(code)
    start_bounded_process()
    options = _Options(
        replies, max_new_tokens, device, chosen_devices, bool(files), len(models) == 1, base
    )
    found = _score_all([(model, chosen[model]) for model in models], data_config, options, is_quiet)
    if not found:
        return

    from convo_cli.cli.views.evaluation.evaluation_view import Failed, as_record, show_scores
    from convo_cli.cli.views.evaluation.reply_samples import write_samples

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


def _score_all(
    models: Sequence[tuple[str, Which | None]],
    data: DataConfig,
    options: _Options,
    is_quiet: bool,
) -> list[Evaluated | Failed]:
    """Score each model together with the other processes; only rank 0 returns the scores."""
    from convo_cli.cli.console import stderr_console
    from convo_cli.cli.views.progress.reporter import make_progress
    from convo_cli.events import ignore
    from convo_cli.model.device import choose_device, require_gpus
    from convo_cli.signals import listening
    from convo_cli.training.distributed.rank_process import world_of

    require_gpus(options.devices, choose_device(options.device))
    found: list[Evaluated | Failed] = []
    with (
        listening() as stop,
        world_of(options.device) as world,
        stop.interrupting("stopped"),  # in the world, so that all processes have this error
        make_progress(stderr_console(), is_quiet=is_quiet or not world.is_first) as progress,
    ):
        emit = progress if world.is_first else ignore
        for model, load in models:
            found.append(_score(model, load, data, options, found, emit, world))
    return found if world.is_first else []


def _score(
    model: str,
    load: Which | None,
    data: DataConfig,
    options: _Options,
    earlier: Sequence[Evaluated | Failed],
    emit: Emit,
    world: World,
) -> Evaluated | Failed:
    """Score one model; if it fails and is one of several, return the failure."""
    from convo_cli.cli.arguments import note_longest_reply
    from convo_cli.cli.views.evaluation.evaluation_view import Evaluated, Failed
    from convo_cli.evaluation.cautions import cautions_about
    from convo_cli.evaluation.finished.model_scoring import score_model
    from convo_cli.evaluation.finished.open_everywhere import open_everywhere
    from convo_cli.events import Notice

    try:
        generator = open_everywhere(
            model, device=options.device, emit=emit, which=load, base=options.base, world=world
        )
        if options.num_replies:
            note_longest_reply(generator, options.max_new_tokens, emit)
        scores = score_model(
            generator,
            data,
            num_replies=options.num_replies,
            max_new_tokens=options.max_new_tokens,
            emit=emit,
            world=world,
        )
    except (StoppedError, RankLostError, DataError, FileChangedError):
        raise  # these concern the processes or the data, which are the same for all models
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
