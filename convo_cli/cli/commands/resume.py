"""The `convo resume` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from convo_cli.cli.options import (
    DevicesOption,
    JsonOption,
    QuietOption,
    SetOption,
    complete_load,
    with_devices,
    within,
)
from convo_cli.errors import CheckpointError, UsageError, typeable

if TYPE_CHECKING:
    from convo_cli.config.schema import RunConfig


def resume(
    run_dir: Annotated[Path, typer.Argument(help="A run directory, created by `convo train`.")],
    load: Annotated[
        Literal["last", "loss", "metric"],
        typer.Option(
            help="The newest checkpoint, or the best by validation loss or metric.",
            autocompletion=complete_load,
        ),
    ] = "last",
    overrides: SetOption = None,
    devices: DevicesOption = None,
    allow_changed: Annotated[
        bool,
        typer.Option(
            "--allow-changed",
            help="Continue although the data, the base model or config.yaml changed.",
        ),
    ] = False,
    discard_later: Annotated[
        bool,
        typer.Option(
            "--discard-later",
            help="With --load loss or metric: continue in this run, and delete its later "
            "checkpoints and log lines.",
        ),
    ] = False,
    is_proof: Annotated[
        bool,
        typer.Option("--verify", help="Prove that resuming changes nothing; the run is only read."),
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            callback=within(2, 1_000_000_000),
            help="With --verify: take N steps from the newest checkpoint, twice.",
        ),
    ] = None,
    as_json: JsonOption = False,
    is_quiet: QuietOption = False,
) -> None:
    """Continue a run from a checkpoint, exactly as if it had never stopped.

    From an older checkpoint, or with --set name=…, training continues in a new run directory
    (default name: NAME-from-STEP), and this run stays as it is.

    --verify proves that resuming changes nothing. It repeats the steps before the newest
    checkpoint, with a save and a resume halfway, and compares weights, optimizer and log with
    those of the run, bit for bit. If the run has no earlier checkpoint, or its settings changed
    since, it takes 4 steps from the newest checkpoint twice: without a break, and with a resume.
    The exit code is 5 if they differ.

    Example: convo resume runs/convo --load last --set training.max_steps=1000
    """
    if steps is not None and not is_proof:
        raise UsageError(
            "--steps works only with --verify",
            hint="--set training.max_steps=… changes the run's length",
        )
    if is_proof and load != "last":
        raise UsageError("--verify uses the newest checkpoint", hint="leave out --load")
    if discard_later and (is_proof or load == "last"):
        raise UsageError(
            "--discard-later works only with --load loss or metric",
            hint="add --load loss, or leave out --discard-later",
        )
    from convo_cli.cli.config_paths import require_data_of_run
    from convo_cli.cli.console import announce
    from convo_cli.cli.given_paths import require_run
    from convo_cli.config.load import keys_set_by, locate_overrides
    from convo_cli.runs.directory import existing_run, how_to_continue
    from convo_cli.runs.provenance.run_info import read_config
    from convo_cli.training.distributed.launcher import launch
    from convo_cli.training.distributed.rank_process import is_launched, world_of
    from convo_cli.world import is_first_process

    require_run(run_dir)
    overrides = with_devices(overrides, devices)
    before = read_config(existing_run(run_dir))
    located = locate_overrides(before, overrides)
    if is_proof and located.config.name != before.name:
        raise UsageError("--verify creates no new run", hint="leave out --set name=…")
    run_config = require_data_of_run(located)
    doing = "verifying" if is_proof else "resuming"
    if not is_launched():
        announce(f"{doing} {run_dir} (loading PyTorch takes a few seconds)", is_quiet=is_quiet)
    if is_proof and not is_first_process():  # of torchrun
        return
    if not is_proof:
        code = launch(
            run_config.training.devices,
            run_config.training.device,
            sys.argv[1:],
            hint=lambda: how_to_continue(existing_run(run_dir)),
        )
        if code is not None:
            raise typer.Exit(code)

    from convo_cli.signals import listening
    from convo_cli.text.bounded.client import start_bounded_process

    start_bounded_process()
    with listening() as stop:
        # Importing torch takes seconds, and a signal must be able to interrupt it.
        again = f"convo resume {typeable(run_dir)}"
        with stop.interrupting("stopped before the first step; the run is unchanged", hint=again):
            from convo_cli.cli.console import print_json
            from convo_cli.cli.streams import finished
            from convo_cli.cli.views.run_view import as_record, run_progress, show_result
            from convo_cli.events import ignore
            from convo_cli.training.run import resume_run

        if is_proof:
            _verify(
                run_dir,
                run_config,
                steps,
                allow_changed=allow_changed,
                as_json=as_json,
                is_quiet=is_quiet,
            )
            return
        with (
            world_of(run_config.training.device) as world,
            run_progress(run_config, run_dir, is_quiet=is_quiet or not world.is_first) as emit,
        ):
            result = resume_run(
                run_dir,
                load,
                run_config,
                emit if world.is_first else ignore,
                allow_changed=allow_changed,
                discard_later=discard_later,
                keys_set=keys_set_by(overrides),
                world=world,
            )
        if not world.is_first:
            return
        with finished(f"the run itself is complete: {typeable(result.run_dir)}"):
            if as_json:
                print_json("resume", as_record(result))
            else:
                show_result(result, is_quiet=is_quiet)


def _verify(
    run_dir: Path,
    config: RunConfig,
    steps: int | None,
    *,
    allow_changed: bool,
    as_json: bool,
    is_quiet: bool,
) -> None:
    from convo_cli.cli.console import print_json, stderr_console, stdout_console
    from convo_cli.cli.views.progress.reporter import make_progress
    from convo_cli.cli.views.verify_view import as_record, show_verdict
    from convo_cli.training.resume.replay import verify_run

    with make_progress(stderr_console(), is_quiet=is_quiet) as emit:
        verdict = verify_run(run_dir, config, emit, num_steps=steps, allow_changed=allow_changed)
    if not as_json:
        show_verdict(stdout_console(), verdict)
    if verdict.difference is not None:
        raise CheckpointError(
            f"{run_dir}: the resumed run differs: {verdict.difference}",
            hint="with training.deterministic: true, a difference is a bug in convo",
        )
    if as_json:
        print_json("resume", as_record(run_dir, verdict))
