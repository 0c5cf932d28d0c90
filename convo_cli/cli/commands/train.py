"""The `convo train` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from convo_cli.cli.options import (
    DevicesOption,
    JsonOption,
    QuietOption,
    SetOption,
    with_devices,
)
from convo_cli.errors import typeable


def train(
    config: Annotated[Path, typer.Argument(help="YAML made by `convo init-config`.")],
    overrides: SetOption = None,
    devices: DevicesOption = None,
    is_dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Prepare and check everything, print the plan of the run, and take no step.",
        ),
    ] = False,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Train a model in a new run directory.

    Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 stops after the current step and saves the run. A second
    signal other than SIGHUP leaves without saving; earlier checkpoints stay intact.
    `touch RUN_DIR/stop` also stops and saves, with exit code 0.

    With --dry-run, the data is prepared and checked as for a run, and a later run reuses it from
    the cache. The plan shows data, model size, steps, disk space and learning rate. No run
    directory is created.

    Example: convo train config.yaml --set training.max_steps=500
    """
    from convo_cli.cli.arguments import require_good_data
    from convo_cli.cli.config_paths import placing_missing_model, require_paths
    from convo_cli.cli.console import announce
    from convo_cli.cli.given_paths import require_config
    from convo_cli.config.load import locate_config
    from convo_cli.runs.directory import RunDirectory, how_to_continue, require_new
    from convo_cli.training.distributed.chosen_devices import choose_devices
    from convo_cli.training.distributed.launcher import launch
    from convo_cli.training.distributed.rank_process import is_launched, world_of
    from convo_cli.world import is_first_process

    require_config(config)
    overrides = with_devices(overrides, devices)
    located = locate_config(config, overrides)
    run_config = require_paths(located)
    run = RunDirectory(Path(run_config.output_dir) / run_config.name)
    require_new(run)
    if not is_launched():
        announce(f"starting {run.path} (loading PyTorch takes a few seconds)", is_quiet=is_quiet)
        require_good_data(
            run_config.data,
            what="the data cannot be trained on",
            train_on=run_config.dialogue.train_on,
            max_validation=run_config.evaluation.max_dialogues,
        )
    if is_dry_run:
        if not is_first_process():  # of torchrun
            return
        training = run_config.training
        chosen = choose_devices(training.devices, training.device, is_dry_run=True)
    else:
        code = launch(
            run_config.training.devices,
            run_config.training.device,
            sys.argv[1:],
            hint=lambda: how_to_continue(run),
            config=config,
        )
        if code is not None:
            raise typer.Exit(code)

    from convo_cli.signals import listening
    from convo_cli.text.bounded.client import start_bounded_process

    start_bounded_process()
    with listening() as stop, placing_missing_model(located):
        # Importing torch takes seconds, and a signal must be able to interrupt it.
        with stop.interrupting(
            "stopped before the first step; no run was created", hint="run the command again"
        ):
            from convo_cli.cli.console import print_json, stdout_console
            from convo_cli.cli.streams import finished
            from convo_cli.cli.views.run_view import as_record, run_progress, show_result
            from convo_cli.events import ignore
            from convo_cli.training.run import plan_run, start_run

        if is_dry_run:
            from convo_cli.cli.views import plan_view

            with run_progress(run_config, run.path, is_quiet=is_quiet) as emit:
                plan = plan_run(run_config, emit, chosen.num_processes)
            if as_json:
                print_json("train", plan_view.as_record(plan))
            else:
                plan_view.show_plan(stdout_console(), plan)
            if not is_quiet:
                plan_view.show_next(config, overrides or ())
            return
        with (
            world_of(run_config.training.device) as world,
            run_progress(run_config, run.path, is_quiet=is_quiet or not world.is_first) as emit,
        ):
            result = start_run(run_config, emit if world.is_first else ignore, world)
        if not world.is_first:
            return
        with finished(f"the run itself is complete: {typeable(result.run_dir)}"):
            if as_json:
                print_json("train", as_record(result))
            else:
                show_result(result, is_quiet=is_quiet)
