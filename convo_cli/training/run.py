"""Composition root of training, which starts, resumes or forks a run.

Everything is checked before the run directory appears; it has a checkpoint 0 to resume from.
"""

from __future__ import annotations

import stat
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from convo_cli.config.schema import RunConfig
from convo_cli.errors import typeable
from convo_cli.events import Emit, Notice, begin, ignore
from convo_cli.prepare.cache import Cache
from convo_cli.prepare.inputs import Inputs
from convo_cli.runs.begin import begun, rehearse
from convo_cli.runs.directory import RunDirectory, existing_run, require_new
from convo_cli.runs.lock import locked
from convo_cli.runs.logs.final_scores import read_final_scores
from convo_cli.runs.privacy import keep_private, run_sources
from convo_cli.runs.provenance.data_files import DataFiles, with_hashed_data
from convo_cli.runs.provenance.git import read_git
from convo_cli.runs.provenance.movable import movable_base, movable_config, movable_files
from convo_cli.runs.provenance.run_info import (
    RunInfo,
    make_run_info,
    read_run_info,
    write_provenance,
)
from convo_cli.runs.provenance.training_dialogues import record_training_dialogues
from convo_cli.runs.selection import Which, point_and_prune
from convo_cli.runs.tokenizer_folder import copy_tokenizer
from convo_cli.signals import STEP, UNSAVED, StopRequest, listening
from convo_cli.storage.access import derived_mode, masked
from convo_cli.training.build import build_new, settle_base_model
from convo_cli.training.checkpoint_check import require_readable
from convo_cli.training.distributed.same_inputs import require_same_config, require_same_parts
from convo_cli.training.outcome.result import RunResult, result_of
from convo_cli.training.outcome.scoring import score_test_data
from convo_cli.training.planning.plan import Plan, make_plan
from convo_cli.training.recorded import follow, train_and_record
from convo_cli.training.resume.horizon import HORIZON, settings_to_continue, warm_up_notices
from convo_cli.training.resume.place import forked, rewind
from convo_cli.training.resume.point import ResumePoint, load_resume_point
from convo_cli.training.run_parts import Parts
from convo_cli.training.sharding.joint_saving import save_step
from convo_cli.training.state import TrainState
from convo_cli.world import World

_NOTHING = "stopped before the first step; no run was created"
_AGAIN = "run the command again; it reuses the prepared data"
_NAMES: dict[Which, str] = {
    "last": "last checkpoint",
    "loss": "best checkpoint by loss",
    "metric": "best checkpoint by metric",
}


def start_run(config: RunConfig, emit: Emit, world: World | None = None) -> RunResult:
    """Train from step 0 in a new run directory; every process of the world calls it.

    Raises what `convo_cli.training.loop.train` raises.
    """
    world = world or World()
    with listening() as stop, world.connected():
        new = _prepare(config, stop, emit, world)
        with stop.finishing(STEP, second=UNSAVED), masked(new.allowed), ExitStack() as held:
            world.first_alone(lambda: held.enter_context(begun(new.run, new.fill)))
            if not world.is_first:
                return follow(new.run, new.parts, new.state, {}, stop)
            keep_private(new.run, new.allowed, emit)
            return train_and_record(new.run, new.parts, new.state, {}, stop, emit)


def plan_run(config: RunConfig, emit: Emit, num_processes: int = 1) -> Plan:
    """Do everything that `start_run` does before step 1, with the same errors, and leave no run."""
    with listening() as stop:
        new = _prepare(config, stop, emit, World())
        plans: list[Plan] = []

        def fill(aside: RunDirectory) -> None:
            new.fill(aside)
            begin("estimating memory and time", emit)
            plans.append(make_plan(new.run, new.parts, new.state, aside, num_processes))

        with stop.interrupting(_NOTHING, hint=_AGAIN), masked(new.allowed):
            rehearse(new.run, fill)
        for notice in warm_up_notices(new.parts, 0):
            emit(notice)
        return plans[0]


@dataclass(frozen=True)
class _NewRun:
    """A run that is built and checked, but not yet on the disk."""

    run: RunDirectory
    parts: Parts
    state: TrainState
    info: RunInfo
    allowed: int
    """Mode of the run directory, which is no more readable than the data."""
    emit: Emit

    def fill(self, aside: RunDirectory) -> None:
        """Write the run with its checkpoint 0 into a folder, and read the checkpoint back."""
        write_provenance(aside, self.info)
        record_training_dialogues(aside, self.parts.data.train.kept_fingerprints, aside, self.emit)
        begin("saving the first checkpoint", self.emit)
        save_step(aside, self.parts, self.state, {}, ignore)
        copy_tokenizer(aside, aside.checkpoint(0))
        begin("checking the first checkpoint", self.emit)
        require_readable(aside.checkpoint(0), self.parts)


def _prepare(config: RunConfig, stop: StopRequest, emit: Emit, world: World) -> _NewRun:
    """Build and check a new run; nothing but the cache is written."""
    run = RunDirectory(Path(config.output_dir) / config.name)
    require_new(run)
    cache = Cache(run.path.parent, emit)
    with stop.interrupting(_NOTHING, hint=lambda: _start_again(cache)):
        require_same_config(world, config)
        config, base_model, base_folder = settle_base_model(config, emit)

        def prepare(files: DataFiles) -> tuple[DataFiles, Parts, TrainState]:
            return files, *build_new(Inputs(config, files, cache, emit, world), base_model)

        files, parts, state = with_hashed_data(config.data, prepare, emit)
        if base_folder is not None:
            base_folder.require_unchanged()
        info = make_run_info(
            movable_config(config, run),
            movable_files(files, run),
            execution=parts.execution,
            git=read_git(Path()),
            base_model=movable_base(base_model, run),
            max_steps=parts.max_steps,
        )
        state.run_id = info.run_id
        require_new(run)  # preparing may have taken minutes
        require_same_parts(world, files, parts)
    allowed = derived_mode(run_sources(config), run.path)
    return _NewRun(run, parts, state, info, allowed, emit)


def resume_run(
    run_dir: Path,
    which: Which,
    config: RunConfig,
    emit: Emit,
    *,
    allow_changed: bool = False,
    discard_later: bool = False,
    keys_set: Collection[str] = (),
    world: World | None = None,
) -> RunResult:
    """Continue exactly from a checkpoint; every process of the world calls it.

    ``config`` is the run's own, with the user's changes of ``keys_set``. From the newest
    checkpoint, the run continues in its directory. From an older one, or under another name, it
    forks: training continues in a new run directory, and this one stays as it is. With
    ``discard_later``, an older checkpoint continues in place, and later checkpoints are deleted. A
    finished run stays as it is.

    Raises CheckpointError if no checkpoint is intact or the fork already exists. Raises
    ChangedError if data, base model or config.yaml have changed, unless that is allowed.
    """
    run, world = existing_run(run_dir), world or World()
    with listening() as stop, ExitStack() as held, world.connected():
        if world.is_first:
            held.enter_context(locked(run))
        resume = f"convo resume {typeable(run.path)}"
        with stop.interrupting("stopped before the first step; the run is unchanged", hint=resume):
            cache = Cache(run.path.resolve().parent, emit)
            require_same_config(world, config)

            def load(files: DataFiles) -> ResumePoint:
                return load_resume_point(
                    run, which, Inputs(config, files, cache, emit, world),
                    allow_changed=allow_changed, discard_later=discard_later,
                    is_horizon_set=HORIZON in keys_set,
                )  # fmt: skip

            point = with_hashed_data(config.data, load, emit)
            require_same_parts(world, point.info, point.parts)
        mode = stat.S_IRWXU | run.path.stat().st_mode  # a read-only run can still be forked
        allowed = derived_mode(run_sources(point.parts.config), (point.fork or run).path) & mode
        if not world.is_first:
            return _follow_resume(run, point, allowed, stop)
        with stop.finishing(STEP, second=UNSAVED), masked(allowed):
            message = f"resuming from step {point.found.step} ({_NAMES[which]})"
            if point.fork is None:
                if point.reason:
                    if point.parts.data.test is not None:
                        keep_private(run, allowed, emit)
                    return _already_over(run, point, point.reason, stop, emit)
                rewind(run, point, emit)
            else:
                with held.pop_all():  # releases the run's lock when the fork is complete
                    held.enter_context(forked(run, point.fork, point, emit))
                message += f" in a new run, {point.fork.path}; {run.path} stays as it is"
            keep_private(point.fork or run, allowed, emit)
            for notice in (Notice(message), *point.notices):
                emit(notice)
            return train_and_record(
                point.fork or run, point.parts, point.state, point.evaluations, stop, emit
            )


def _follow_resume(
    run: RunDirectory, point: ResumePoint, allowed: int, stop: StopRequest
) -> RunResult:
    """Take part in a resume as a rank other than 0."""
    with stop.finishing(STEP, second=UNSAVED), masked(allowed):
        if point.reason and point.fork is None:
            score_test_data(run, point.parts, point.state, stop, ignore)
            return result_of(run, point.parts, point.state, point.reason, point.evaluations, None)
        return follow(point.fork or run, point.parts, point.state, point.evaluations, stop)


def _start_again(cache: Cache) -> str:
    """Return the hint after a stop during the preparation."""
    kept = "; it reuses the finished parts of the preparation" if cache.has_kept else ""
    return f"run the command again{kept}"


def _already_over(
    run: RunDirectory, point: ResumePoint, reason: str, stop: StopRequest, emit: Emit
) -> RunResult:
    """Return the result of a finished run, after scoring its test data if test.json is outdated."""
    config = point.parts.config
    # The checkpoint exists, but the pointers to it may have been lost.
    point_and_prune(run, point.found.path, config, point.evaluations, prunes=False)
    # The settings of this resume are not stored, so the next one begins with those of the run.
    stored = replace(point.parts, config=point.info.config, max_steps=point.info.max_steps)
    if point.info != read_run_info(run):
        write_provenance(run, point.info)
    known = read_final_scores(run)
    test = score_test_data(run, point.parts, point.state, stop, emit, known=known)
    if test is not None or point.parts.data.test is None:  # else the user stopped it
        what = "nothing to do" if test in (known, None) else "scored its test data"
        emit(Notice(f"{what}: this run already finished ({reason})"))
    to_continue = settings_to_continue(stored, point.state.progress)
    result = result_of(run, point.parts, point.state, reason, point.evaluations, test)
    return replace(result, to_continue=to_continue)
