"""The composition root: builds the parts of a run from its config, starts it or goes on with it.

Everything is checked before the run directory appears, and it appears with a checkpoint in it; from then on one is
always there to resume from.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from convo_cli.config.load import load_config
from convo_cli.config.schema import RunConfig
from convo_cli.errors import ChangedError, CheckpointError, DiskError, DivergedError, StoppedError
from convo_cli.events import Event, Notice, Report, RunFinished, RunStarted
from convo_cli.model.cost import peak_flops
from convo_cli.model.device import choose_device, choose_precision
from convo_cli.runs.atomic import disk_errors, remove_directory, remove_leftovers
from convo_cli.runs.begin import begun
from convo_cli.runs.checkpoint import Which, find_checkpoint, is_saved
from convo_cli.runs.layout import RunDirectory, existing_run, require_new
from convo_cli.runs.lock import locked
from convo_cli.runs.metrics import MetricsLog
from convo_cli.runs.plots import plot_losses, plot_schedule
from convo_cli.runs.provenance import (
    DataFiles,
    RunInfo,
    changes_of_base_model,
    changes_of_config,
    changes_of_data,
    make_run_info,
    other_versions,
    read_base_model,
    read_data_files,
    read_git,
    read_run_info,
    write_provenance,
)
from convo_cli.runs.tensorboard import TensorBoardLog
from convo_cli.text.hub import local_folder
from convo_cli.training.build import build_from, build_new
from convo_cli.training.cache import Cache
from convo_cli.training.checkpoint import save_checkpoint
from convo_cli.training.loop import STOPPED, StepDivergedError, reason_it_is_over, train
from convo_cli.training.plan import Parts, examples_at, make_plan
from convo_cli.training.preflight import count_tokens
from convo_cli.training.signals import StopRequest, listening
from convo_cli.training.state import TrainState

_SETTLED = ("name", "output_dir", "model", "tokenizer", "dialogue.template", "dialogue.max_length")
"""Keys that only the beginning of a run reads."""
_MAX_NAMED = 5
"""Changes, or dialogues, that a message names one by one."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    run_dir: Path
    step: int
    reason: str
    best_loss: float | None
    best_metric: float | None


def start_run(config: RunConfig, report: Report) -> RunResult:
    """Train from the beginning into a new run directory. See `convo_cli.training.loop.train` for what is raised."""
    run = RunDirectory(Path(config.output_dir) / config.name)
    require_new(run)
    nothing = "stopped before the first step; no run was begun"
    with listening() as stop:
        with stop.interrupting(nothing, hint="start it again; what was prepared until then is still there"):
            device = choose_device(config.training.device)
            files = read_data_files(config.data)
            parts, state = build_new(config, files, Cache(run.path.parent, report), report)
            source = config.model.pretrained
            info = make_run_info(
                _with_absolute_paths(config),
                files,
                device=str(device),
                git=read_git(Path()),
                base_model=read_base_model(source, local_folder(source, config.model.revision)) if source else None,
            )
            state.run_id = info.run_id
            require_new(run)  # preparing may have taken minutes

        def fill(aside: RunDirectory) -> None:
            write_provenance(aside, info)
            _save(aside, parts, state, lambda event: None)

        with begun(run, fill):
            return _train(run, parts, state, stop, report)


def resume_run(
    run_dir: Path, which: Which, config: RunConfig, report: Report, *, allow_changed: bool = False
) -> RunResult:
    """Go on exactly where a checkpoint stands; ``config`` is the run's own, with the user's changes.

    Loading the best by loss or metric discards what came after it, and says so. A run that is over stays as it is.
    Raises CheckpointError where there is nothing whole to load, ChangedError where data, base model or config.yaml are
    not what the run began with, unless that is allowed.
    """
    run = existing_run(run_dir)
    resume = f"convo resume {shlex.quote(str(run.path))}"
    with listening() as stop, locked(run):
        with stop.interrupting("stopped before the first step; the run is as it was", hint=resume):
            info = read_run_info(run)
            require_same_config(info.config, config)
            remove_leftovers(run.path)
            remove_leftovers(run.checkpoints)
            files = read_data_files(config.data)
            info = accept_changes(run, info, files, report, allow_changed=allow_changed)
            checkpoint = find_checkpoint(run, which, report)
            parts, state = build_from(checkpoint.path, config, files, Cache(run.path.resolve().parent, report), report)
            if state.run_id != info.run_id:
                raise CheckpointError(
                    f"{checkpoint.path}: a checkpoint of another run (its run_id is {state.run_id}, this run's "
                    f"{info.run_id})",
                    hint="take it out of this run's checkpoints",
                )
            for difference in other_versions(info, device=str(parts.device)):
                report(Notice(f"{difference} when the run began: its numbers may differ in the last digits", True))
        plan = make_plan(run, parts, stop, report)
        is_evaluated = state.progress.scores is not None or not plan.is_evaluation_due(state.progress.step)
        if is_evaluated and (reason := reason_it_is_over(state, plan)):
            plan.save(state)  # it is saved; what only names it may have been lost
            report(Notice(f"the run is over, so nothing is done: {reason}"))
            return _result(run, state, reason)
        _discard_after(run, state.progress.step, report)
        write_provenance(run, info.model_copy(update={"config": _with_absolute_paths(config)}))
        if run.stop.is_file():
            report(Notice(f"{run.stop}: from before, so it is removed"))
            _remove_stop_file(run)
        report(Notice(f"going on from {checkpoint.path.name}, the {which} checkpoint"))
        return _train(run, parts, state, stop, report)


def _train(run: RunDirectory, parts: Parts, state: TrainState, stop: StopRequest, report: Report) -> RunResult:
    """Attach the run directory's own reporters, draw the schedule, and hand over to the loop."""
    config = parts.config
    step = state.progress.step
    with ExitStack() as stack:
        log = MetricsLog(run.metrics, run.samples, after_step=step)
        reporters: list[Report] = [stack.enter_context(closing(log))]
        if config.logging.tensorboard:
            board = TensorBoardLog(run.tensorboard, after_step=step)
            reporters.append(stack.enter_context(closing(board)))
        reporters.append(report)

        def tell(event: Event) -> None:
            for reporter in reporters:
                reporter(event)

        plan = make_plan(run, parts, stop, tell)
        if config.logging.plots:
            with disk_errors(run.plots):
                run.plots.mkdir(exist_ok=True)
            plot_schedule(run.plots / "learning_rate.png", [plan.learning_rate(k) for k in range(parts.max_steps)])
        tell(_started(run, parts, state))
        try:
            reason = train(state, plan, tell)
        except StepDivergedError as error:
            raise _explained(error, run, parts, state, tell) from error
        if config.logging.plots:
            plot_losses(run.plots / "loss.png", run.metrics)
        tell(RunFinished(state.progress.step, reason))
    if reason == STOPPED:
        _remove_stop_file(run)
        message = f"stopped after step {state.progress.step} of {parts.max_steps}; the run is saved"
        resume = f"convo resume {shlex.quote(str(run.path))}"
        if stop.signal_number is not None:
            raise StoppedError(stop.signal_number, message, hint=resume)
        report(Notice(message))
    return _result(run, state, reason)


def _remove_stop_file(run: RunDirectory) -> None:
    with disk_errors(run.stop):
        run.stop.unlink(missing_ok=True)


def _save(run: RunDirectory, parts: Parts, state: TrainState, report: Report) -> None:
    """Save the state and delete nothing."""
    save_checkpoint(run, state, parts.encoder, spiece=parts.spiece, keep=sys.maxsize, report=report)


def _explained(
    error: StepDivergedError, run: RunDirectory, parts: Parts, state: TrainState, report: Report
) -> DivergedError:
    """The same error with the dialogues of the step; what came before the step is saved, beside what there was."""
    step, store, files = state.progress.step, parts.data.train, parts.config.data.train
    try:
        if not is_saved(run, state.progress):
            _save(run, parts, state, report)
        saved = f"saved as {run.checkpoint(step).name}"
    except (DivergedError, DiskError) as refusal:
        saved = f"not saved ({refusal.message}); the last checkpoint is of step {run.checkpoint_steps()[-1]}"
    dialogues = sorted({int(store.dialogue_of[index]) for index in examples_at(parts)(step)})
    named = "".join(f"\n  {store.where(dialogue, files)}" for dialogue in dialogues[:_MAX_NAMED])
    more = f"\n  and {len(dialogues) - _MAX_NAMED} more" if len(dialogues) > _MAX_NAMED else ""
    return DivergedError(
        f"{error.message}, {saved}; step {step + 1} is on these dialogues:{named}{more}", hint=error.hint
    )


def _result(run: RunDirectory, state: TrainState, reason: str) -> RunResult:
    progress = state.progress
    return RunResult(run.path, progress.step, reason, progress.best_loss, progress.best_metric)


def accept_changes(
    run: RunDirectory, info: RunInfo, files: DataFiles, report: Report, *, allow_changed: bool
) -> RunInfo:
    """What the run goes on with; ChangedError where that is not what it began with and nobody allowed it."""
    changes = [
        *changes_of_config(run, info, load_config(run.config)),
        *changes_of_data(info, files),
        *changes_of_base_model(info),
    ]
    if not changes:
        return info
    if not allow_changed:
        more = f"\nand {len(changes) - _MAX_NAMED} more" if len(changes) > _MAX_NAMED else ""
        raise ChangedError(
            "\n".join(changes[:_MAX_NAMED]) + more,
            hint="put it back (a key is changed with --set KEY=VALUE); --allow-changed goes on with what is there now",
        )
    for change in changes:
        report(Notice(f"{change}; going on with it", is_warning=True))
    base = info.base_model
    if base is not None and base.commit is None and Path(base.source).is_dir():
        base = read_base_model(base.source, Path(base.source))
    return info.model_copy(update={"train": files.train, "validation": files.validation, "base_model": base})


def _discard_after(run: RunDirectory, step: int, report: Report) -> None:
    """Delete the checkpoints after the one that is resumed: the run goes another way from here."""
    later = [later for later in run.checkpoint_steps() if later > step]
    if later:
        names = ", ".join(run.checkpoint(one).name for one in later)
        report(Notice(f"discarding what came after step {step}: {names} and their log lines", is_warning=True))
    for one in later:
        remove_directory(run.checkpoint(one))


def _started(run: RunDirectory, parts: Parts, state: TrainState) -> RunStarted:
    encoder, data = parts.encoder, parts.data
    return RunStarted(
        run_dir=run.path,
        device=str(parts.device),
        precision=choose_precision(parts.config.training.precision, parts.device),
        num_parameters=sum(parameter.numel() for parameter in parts.model.parameters()),
        template=encoder.template.name,
        max_length=encoder.max_length,
        training=count_tokens(data.train, encoder.max_length),
        validation=None if data.validation is None else count_tokens(data.validation, encoder.max_length),
        first_step=state.progress.step + 1,
        max_steps=parts.max_steps,
        steps_per_epoch=math.ceil(parts.steps_per_epoch),
        peak_flops=peak_flops(parts.device, choose_precision(parts.config.training.precision, parts.device)),
    )


def require_same_config(before: RunConfig, now: RunConfig) -> None:
    """Raise ChangedError for a key that is settled in the checkpoints, so that changing it would do nothing."""
    for key in _SETTLED:
        old, new = attrgetter(key)(before), attrgetter(key)(now)
        if old != new:
            raise ChangedError(
                f"{key} is {new!r}, but the run was made with {old!r}", hint="start another run to change it"
            )


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """Data paths that still work when the run is resumed from another folder."""

    def absolute(paths: Sequence[str]) -> tuple[str, ...]:
        return tuple(str(Path(path).resolve()) for path in paths)

    data = config.data.model_copy(
        update={"train": absolute(config.data.train), "validation": absolute(config.data.validation)}
    )
    return config.model_copy(update={"data": data})
