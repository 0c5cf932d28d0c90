"""Composition root of training, which starts, resumes or forks a run.

Everything is checked before the run directory appears. It appears with checkpoint 0, so every run
can be resumed.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from convo_cli.config.schema import PretrainedModel, RunConfig
from convo_cli.errors import typeable
from convo_cli.events import Emit, Notice, begin, ignore
from convo_cli.prepare.cache import Cache
from convo_cli.prepare.inputs import Inputs
from convo_cli.runs.begin import begun
from convo_cli.runs.directory import RunDirectory, existing_run, require_new
from convo_cli.runs.fork import fill_fork
from convo_cli.runs.lock import locked
from convo_cli.runs.privacy import keep_private, run_sources
from convo_cli.runs.provenance.data_files import DataFiles, with_hashed_data
from convo_cli.runs.provenance.git import read_git
from convo_cli.runs.provenance.movable import movable_config, movable_files
from convo_cli.runs.provenance.run_info import (
    BaseModelFiles,
    Parent,
    make_run_info,
    new_run_id,
    read_base_model,
    write_provenance,
)
from convo_cli.runs.selection import Which, point_and_prune
from convo_cli.signals import STEP, UNSAVED, listening
from convo_cli.storage.access import derived_mode, masked
from convo_cli.storage.atomic import remove_directory
from convo_cli.storage.snapshot import Snapshot
from convo_cli.text.tokenizers.hub import local_folder
from convo_cli.training.build import Parts, build_new
from convo_cli.training.checkpoint_check import require_readable
from convo_cli.training.job import save_and_prune
from convo_cli.training.recorded import RunResult, remove_stop_file, result_of, train_and_record
from convo_cli.training.resume.horizon import HORIZON, settings_to_continue
from convo_cli.training.resume.point import ResumePoint, load_resume_point
from convo_cli.training.state import TrainState

_NAMES: dict[Which, str] = {
    "last": "last checkpoint",
    "loss": "best checkpoint by loss",
    "metric": "best checkpoint by metric",
}


def start_run(config: RunConfig, emit: Emit) -> RunResult:
    """Train from step 0 in a new run directory. Raises what `convo_cli.training.loop.train`
    raises.
    """
    run = RunDirectory(Path(config.output_dir) / config.name)
    require_new(run)
    nothing = "stopped before the first step; no run was created"
    cache = Cache(run.path.parent, emit)
    with listening() as stop:
        with stop.interrupting(nothing, hint=lambda: _start_again(cache)):
            config, base_model, base_folder = _settle_base_model(config, emit)

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
            begin("saving the first checkpoint", emit)
            save_and_prune(aside, parts, state, {}, ignore)
            begin("checking the first checkpoint", emit)
            require_readable(aside.checkpoint(0), parts)

        allowed = derived_mode(run_sources(config), run.path)
        with stop.finishing(STEP, second=UNSAVED), masked(allowed), begun(run, fill):
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
    """Continue exactly from a checkpoint; ``config`` is the run's own, with the user's changes of
    ``keys_set``.

    From the newest checkpoint, the run continues in its directory. From an older one, or under
    another name, it forks: training continues in a new run directory, and this one stays as it is.
    With ``discard_later``, an older checkpoint continues in place, and later checkpoints are
    deleted. A finished run stays as it is.

    Raises CheckpointError if no intact checkpoint is found or the fork exists already, ChangedError
    if data, base model or config.yaml differ from those that the run began with, unless that is
    allowed.
    """
    run = existing_run(run_dir)
    with listening() as stop, ExitStack() as held:
        held.enter_context(locked(run))
        resume = f"convo resume {typeable(run.path)}"
        with stop.interrupting("stopped before the first step; the run is as it was", hint=resume):
            cache = Cache(run.path.resolve().parent, emit)

            def load(files: DataFiles) -> ResumePoint:
                return load_resume_point(
                    run, which, Inputs(config, files, cache, emit),
                    allow_changed=allow_changed, discard_later=discard_later, is_horizon_set=HORIZON in keys_set,
                )  # fmt: skip

            point = with_hashed_data(config.data, load, emit)
        mode = (
            stat.S_IRWXU | run.path.stat().st_mode
        )  # a read-only run directory can still be forked
        allowed = derived_mode(run_sources(point.parts.config), (point.fork or run).path) & mode
        with stop.finishing(STEP, second=UNSAVED), masked(allowed):
            message = f"resuming from step {point.found.step} ({_NAMES[which]})"
            if point.fork is None:
                if point.reason:
                    return _already_over(run, point, point.reason, emit)
                _rewind(run, point, emit)
            else:
                with (
                    held.pop_all()
                ):  # releases the run's lock once the fork has everything it needs
                    held.enter_context(_forked(run, point.fork, point))
                message += f" in a new run, {point.fork.path}; {run.path} stays as it is"
            keep_private(point.fork or run, allowed, emit)
            for notice in (Notice(message), *point.notices):
                emit(notice)
            return train_and_record(
                point.fork or run, point.parts, point.state, point.evaluations, stop, emit
            )


def _start_again(cache: Cache) -> str:
    """Return the hint after a stop in the preparation, true for the stage that was reached."""
    kept = "; the parts of the preparation that were finished are kept" if cache.has_kept else ""
    return f"start it again{kept}"


def _settle_base_model(
    config: RunConfig, emit: Emit
) -> tuple[RunConfig, BaseModelFiles | None, Snapshot | None]:
    """Return the config with the pretrained model's commit, the hashes of its files, and a snapshot
    from before.
    """
    origin = config.model.origin
    if not isinstance(origin, PretrainedModel):
        return config, None, None
    begin("hashing the base model", emit)
    folder = local_folder(origin.source, origin.revision)
    before = Snapshot.of(folder)
    files = read_base_model(origin.source, folder)
    if files.commit is not None:  # the branch on the hub may move before the model is loaded
        model = config.model.model_copy(update={"revision": files.commit})
        config = config.model_copy(update={"model": model})
    return config, files, before


def _already_over(run: RunDirectory, point: ResumePoint, reason: str, emit: Emit) -> RunResult:
    config = point.parts.config
    # The checkpoint exists, but the pointers to it may have been lost.
    point_and_prune(
        run,
        point.found.path,
        keep=sys.maxsize,
        metric=config.evaluation.metric,
        evaluations=point.evaluations,
    )
    emit(Notice(f"nothing to do: this run already finished ({reason})"))
    # The settings of this resume are not stored, so the next one begins with those of the run.
    stored = replace(point.parts, config=point.info.config, max_steps=point.info.max_steps)
    to_continue = settings_to_continue(stored, point.state.progress)
    result = result_of(run, point.parts, point.state, reason, point.evaluations)
    return replace(result, to_continue=to_continue)


def _rewind(run: RunDirectory, point: ResumePoint, emit: Emit) -> None:
    """Delete the checkpoints after the resumed one, and write config.yaml and run.json of the
    resumed run.
    """
    if point.found.later:
        names = ", ".join(run.checkpoint(step).name for step in point.found.later)
        emit(
            Notice(
                f"discarded after step {point.found.step}: {names} and their log lines",
                is_warning=True,
            )
        )
    for step in point.found.later:
        remove_directory(run.checkpoint(step), below=run.path)
    write_provenance(run, point.info)
    if run.is_stop_requested:
        emit(Notice(f"{run.stop}: removed; it asked an earlier training to stop"))
        remove_stop_file(run)


@contextmanager
def _forked(parent: RunDirectory, fork: RunDirectory, point: ResumePoint) -> Iterator[None]:
    """Create the fork, whole or not at all, and hold its lock inside the block."""
    old = point.info
    origin = Parent(run_id=old.run_id, name=parent.path.resolve().name, step=point.found.step)
    info = old.model_copy(update={"run_id": new_run_id(), "parent": origin})
    point.state.run_id = info.run_id

    def fill(aside: RunDirectory) -> None:
        fill_fork(
            aside,
            parent,
            point.found,
            info,
            is_evaluated=point.state.is_evaluated,
            evaluations=point.evaluations,
        )

    with begun(fork, fill):
        yield
