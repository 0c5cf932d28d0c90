"""The composition root: builds the parts of a run from its config, starts it, resumes it, or forks it.

Everything is checked before the run directory appears, and it appears with a checkpoint in it; from then on one is
always there to resume from.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from convo_cli.config.schema import PretrainedModel, RunConfig
from convo_cli.errors import CheckpointError, UsageError, typeable
from convo_cli.events import Emit, EvaluationDone, Notice
from convo_cli.prepare.cache import Cache
from convo_cli.prepare.inputs import Inputs
from convo_cli.runs.begin import begun
from convo_cli.runs.directory import RunDirectory, existing_run, require_new
from convo_cli.runs.fork import fill_fork, fork_of
from convo_cli.runs.lock import locked
from convo_cli.runs.logs.evaluations import read_evaluations, weights_of
from convo_cli.runs.privacy import keep_private, run_sources
from convo_cli.runs.provenance.git import read_git
from convo_cli.runs.provenance.movable import movable_config, movable_files
from convo_cli.runs.provenance.run_info import (
    BaseModelFiles,
    DataFiles,
    Parent,
    RunInfo,
    make_run_info,
    new_run_id,
    read_base_model,
    read_run_info,
    with_hashed_data,
    write_provenance,
)
from convo_cli.runs.selection import Found, Which, find_checkpoint, point_and_prune
from convo_cli.signals import listening
from convo_cli.storage.access import derived_mode, masked
from convo_cli.storage.atomic import remove_directory, remove_leftovers, set_aside
from convo_cli.storage.snapshot import Snapshot
from convo_cli.text.tokenizers.hub import local_folder
from convo_cli.training.build import Parts, build_from, build_new
from convo_cli.training.checkpoint_check import require_readable
from convo_cli.training.job import early_stopping_of, is_evaluation_due
from convo_cli.training.machine import resumed_info
from convo_cli.training.recorded import RunResult, remove_stop_file, result_of, save_all, train_and_record
from convo_cli.training.resume.accept import accept_changes, require_same_config
from convo_cli.training.resume.horizon import HORIZON, resume_schedule, settings_to_continue
from convo_cli.training.state import TrainState, reason_it_is_over, take_scores

_NAMES: dict[Which, str] = {
    "last": "last checkpoint",
    "loss": "best checkpoint by loss",
    "metric": "best checkpoint by metric",
}
_MAX_NAMED = 5
"""Damaged lines that messages name one by one."""


def start_run(config: RunConfig, emit: Emit) -> RunResult:
    """Train from the beginning into a new run directory. See `convo_cli.training.loop.train` for what is raised."""
    run = RunDirectory(Path(config.output_dir) / config.name)
    require_new(run)
    nothing = "stopped before the first step; no run was created"
    with listening() as stop:
        with stop.interrupting(nothing, hint="start it again; the data prepared so far is kept"):
            config, base_model, base_folder = _settle_base_model(config)
            cache = Cache(run.path.parent, emit)

            def prepare(files: DataFiles) -> tuple[DataFiles, Parts, TrainState]:
                return files, *build_new(Inputs(config, files, cache, emit))

            files, parts, state = with_hashed_data(config.data, prepare, emit)
            if base_folder is not None:
                base_folder.require_unchanged()
            info = make_run_info(
                movable_config(config, run),
                DataFiles(*(movable_files(part, run) for part in files)),
                execution=parts.execution,
                git=read_git(Path()),
                base_model=base_model,
                max_steps=parts.max_steps,
            )
            state.run_id = info.run_id
            require_new(run)  # preparing may have taken minutes

        def fill(aside: RunDirectory) -> None:
            write_provenance(aside, info)
            save_all(aside, parts, state, {}, lambda event: None)
            require_readable(aside.checkpoint(0), parts)

        allowed = derived_mode(run_sources(config), run.path)
        with masked(allowed), begun(run, fill):
            keep_private(run, allowed, emit)
            return train_and_record(run, parts, state, {}, stop, emit)


def resume_run(
    run_dir: Path,
    which: Which,
    config: RunConfig,
    emit: Emit,
    *,
    allow_changed: bool = False,
    discard_later: bool = False,
    keys_set: Collection[str] = (),
) -> RunResult:
    """Continue exactly from a checkpoint; ``config`` is the run's own, with the user's changes of ``keys_set``.

    From the newest one the run continues in its directory. From an older one, or under another name, it forks: a new
    run directory beside it continues, and this one stays as it is. With ``discard_later`` an older one is continued in
    place, and what came after it is deleted. A run that is over stays as it is.

    Raises CheckpointError where there is nothing whole to load or the fork exists already, ChangedError where data,
    base model or config.yaml are not what the run began with, unless that is allowed.
    """
    run = existing_run(run_dir)
    with listening() as stop, ExitStack() as held:
        held.enter_context(locked(run))
        resume = f"convo resume {typeable(run.path)}"
        with stop.interrupting("stopped before the first step; the run is as it was", hint=resume):

            def load(files: DataFiles) -> _Start:
                options = {"allow_changed": allow_changed, "discard_later": discard_later}
                return _load(run, which, config, files, emit, is_horizon_set=HORIZON in keys_set, **options)

            start = with_hashed_data(config.data, load, emit)
        mode = stat.S_IRWXU | run.path.stat().st_mode  # a run directory that is kept from changes can be forked
        allowed = derived_mode(run_sources(start.parts.config), (start.fork or run).path) & mode
        with masked(allowed):
            message = f"resuming from step {start.found.step} ({_NAMES[which]})"
            if start.fork is None:
                if start.reason:
                    return _already_over(run, start, start.reason, emit)
                _rewind(run, start, emit)
            else:
                with held.pop_all():  # releases the run's lock once the fork has everything it needs
                    held.enter_context(_forked(run, start.fork, start))
                message += f" in a new run, {start.fork.path}; {run.path} stays as it is"
            keep_private(start.fork or run, allowed, emit)
            for notice in (Notice(message), *start.notices):
                emit(notice)
            return train_and_record(start.fork or run, start.parts, start.state, start.evaluations, stop, emit)


@dataclass(frozen=True)
class _Start:
    """Where a resumed run begins: the checkpoint, verified and loaded, and the evaluations up to it."""

    found: Found
    fork: RunDirectory | None
    info: RunInfo
    parts: Parts
    state: TrainState
    evaluations: dict[int, EvaluationDone]
    notices: tuple[Notice, ...]
    """What changes for the learning rate."""
    reason: str | None
    """Why no step is left to take."""


def _load(
    run: RunDirectory,
    which: Which,
    config: RunConfig,
    files: DataFiles,
    emit: Emit,
    *,
    allow_changed: bool,
    discard_later: bool,
    is_horizon_set: bool,
) -> _Start:
    """Check config, data and checkpoint of a resume, and load them. A fork never changes the run, even if it fails."""
    info = read_run_info(run)
    require_same_config(info.config, config)
    accepted = accept_changes(run, info, files, emit, allow_changed=allow_changed)
    found = find_checkpoint(run, which, config.evaluation.metric)
    fork = fork_of(run, found, info.config.name, config.name, discard_later=discard_later)
    if fork is not None:
        require_new(fork)
    _pass_over_damaged(run, found, fork, emit)
    if fork is None:
        remove_leftovers(run.path)
        remove_leftovers(run.checkpoints, below=run.path)
    cache = Cache(run.path.resolve().parent, emit)
    parts, state = build_from(found.path, info, Inputs(config, files, cache, emit))
    found.files.require_unchanged()
    if state.run_id != info.run_id:
        raise CheckpointError(
            f"{found.path}: a checkpoint of another run (its run_id is {state.run_id}, this run's {info.run_id})",
            hint="take it out of this run's checkpoints",
        )

    evaluations = _evaluations_until(run, found, emit)
    parts, notices = resume_schedule(info, parts, found.step, is_set=is_horizon_set)
    rule = early_stopping_of(parts.config.evaluation)
    if found.step in evaluations:
        take_scores(state, evaluations[found.step], rule)
    is_evaluation_left = not state.is_evaluated and is_evaluation_due(parts, found.step)
    reason = None if is_evaluation_left else reason_it_is_over(state.progress, rule, parts.max_steps)
    if fork is not None and reason:
        raise UsageError(
            f"{fork.path}: not created, because no step is left to take: {reason}",
            hint=" ".join(f"--set {setting}" for setting in settings_to_continue(parts, state.progress)),
        )
    name = info.config.name if fork is None else fork.path.name
    now = movable_config(parts.config, run).model_copy(update={"name": name})
    accepted = accepted.model_copy(update={"max_steps": parts.max_steps})
    if not reason:
        info = resumed_info(info, accepted, now, parts.execution, step=found.step, emit=emit)
    return _Start(found, fork, info, parts, state, evaluations, notices, reason)


def _settle_base_model(config: RunConfig) -> tuple[RunConfig, BaseModelFiles | None, Snapshot | None]:
    """The config with the pretrained model's commit, the hashes of its files, and its folder before the hashing."""
    origin = config.model.origin
    if not isinstance(origin, PretrainedModel):
        return config, None, None
    folder = local_folder(origin.source, origin.revision)
    before = Snapshot.of(folder)
    files = read_base_model(origin.source, folder)
    if files.commit is not None:  # the hub's branch may move before the model is loaded
        model = config.model.model_copy(update={"revision": files.commit})
        config = config.model_copy(update={"model": model})
    return config, files, before


def _pass_over_damaged(run: RunDirectory, found: Found, fork: RunDirectory | None, emit: Emit) -> None:
    """Warn of newer checkpoints that are damaged; where the run continues in place, give them another name."""
    for path, error in found.damaged:
        moved = f"set aside as {set_aside(path, below=run.path).name}, " if fork is None else ""
        emit(Notice(f"{error.message}; {moved}resuming from {found.path.name}", is_warning=True))


def _evaluations_until(run: RunDirectory, found: Found, emit: Emit) -> dict[int, EvaluationDone]:
    """The evaluations of earlier steps, and that of the checkpoint if it scored the same weights."""
    known = read_evaluations(run)
    for line in known.damaged[:_MAX_NAMED]:
        emit(Notice(f"{line}: damaged, so this line is ignored", is_warning=True))
    weights = weights_of(found.path)
    return {
        step: evaluation
        for step, evaluation in known.by_step.items()
        if step < found.step or (step == found.step and evaluation.weights == weights)
    }


def _already_over(run: RunDirectory, start: _Start, reason: str, emit: Emit) -> RunResult:
    config = start.parts.config
    # The checkpoint is there; the pointers that name it may have been lost.
    point_and_prune(
        run, start.found.path, keep=sys.maxsize, metric=config.evaluation.metric, evaluations=start.evaluations
    )
    emit(Notice(f"nothing to do: this run already finished ({reason})"))
    # The settings of this resume are not stored, so the next one begins with those of the run.
    stored = replace(start.parts, config=start.info.config, max_steps=start.info.max_steps)
    to_continue = settings_to_continue(stored, start.state.progress)
    return replace(result_of(run, start.parts, start.state, reason), to_continue=to_continue)


def _rewind(run: RunDirectory, start: _Start, emit: Emit) -> None:
    """Delete the checkpoints after the one that is resumed, and write config.yaml and run.json of the resumed run."""
    if start.found.later:
        names = ", ".join(run.checkpoint(step).name for step in start.found.later)
        emit(Notice(f"discarded after step {start.found.step}: {names} and their log lines", is_warning=True))
    for step in start.found.later:
        remove_directory(run.checkpoint(step), below=run.path)
    write_provenance(run, start.info)
    if run.is_stop_requested:
        emit(Notice(f"{run.stop}: removed; it asked an earlier training to stop"))
        remove_stop_file(run)


@contextmanager
def _forked(parent: RunDirectory, fork: RunDirectory, start: _Start) -> Iterator[None]:
    """Create the fork, whole or not at all, and hold its lock inside the block."""
    old = start.info
    origin = Parent(run_id=old.run_id, name=parent.path.resolve().name, step=start.found.step)
    info = old.model_copy(update={"run_id": new_run_id(), "parent": origin})
    start.state.run_id = info.run_id

    def fill(aside: RunDirectory) -> None:
        fill_fork(
            aside, parent, start.found, info, is_evaluated=start.state.is_evaluated, evaluations=start.evaluations
        )

    with begun(fork, fill):
        yield
