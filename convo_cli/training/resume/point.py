"""The point where a resumed run begins: its checkpoint, verified and loaded."""

from __future__ import annotations

from dataclasses import dataclass

from convo_cli.errors import CheckpointError, UsageError
from convo_cli.events import Emit, EvaluationDone, Notice, begin
from convo_cli.prepare.inputs import Inputs
from convo_cli.runs.directory import RunDirectory, require_new
from convo_cli.runs.fork import fork_of
from convo_cli.runs.logs.evaluations import read_evaluations, weights_of
from convo_cli.runs.provenance.movable import movable_config
from convo_cli.runs.provenance.run_info import RunInfo, read_run_info
from convo_cli.runs.selection import Found, Which, find_checkpoint
from convo_cli.storage.atomic import remove_leftovers, set_aside
from convo_cli.storage.snapshot import Snapshot
from convo_cli.training.build import build_from
from convo_cli.training.job import is_evaluation_due
from convo_cli.training.resume.accept import (
    accept_changes,
    require_same_config,
    resumed_info,
    with_other_files,
)
from convo_cli.training.resume.horizon import resume_schedule, settings_to_continue
from convo_cli.training.run_parts import Parts
from convo_cli.training.state import EarlyStopping, TrainState, reason_it_is_over, take_scores
from convo_cli.world import World

_MAX_NAMED = 5
"""Maximum number of damaged lines that a message lists."""


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint, verified and loaded, with the evaluations and changes of the run up to it."""

    found: Found
    fork: RunDirectory | None
    """The new run that continues; None if the run continues in its own directory."""
    info: RunInfo
    parts: Parts
    state: TrainState
    evaluations: dict[int, EvaluationDone]
    notices: tuple[Notice, ...]
    """Notices about changes of the learning rate."""
    reason: str | None
    """The reason why no step is left; None if one is."""


def load_resume_point(
    run: RunDirectory,
    which: Which,
    inputs: Inputs,
    *,
    allow_changed: bool,
    discard_later: bool,
    is_horizon_set: bool,
) -> ResumePoint:
    """Check and load config, data and checkpoint of a resume.

    A fork never changes its parent run, even if it fails.
    """
    config, emit = inputs.config, inputs.emit
    info = read_run_info(run)
    require_same_config(info.config, config)
    accepted = accept_changes(run, info, inputs, allow_changed=allow_changed)
    begin("verifying the checkpoint", emit)
    found = _find_together(run, which, config.evaluation.metric, inputs.world)
    fork = fork_of(run, found, info.config.name, config.name, discard_later=discard_later)
    if fork is not None:
        require_new(fork)
    if inputs.world.is_first:
        _pass_over_damaged(run, found, fork, emit)
        if fork is None:
            remove_leftovers(run.path)
            remove_leftovers(run.checkpoints, below=run.path)
    parts, state = build_from(found.path, info, inputs)
    found.files.require_unchanged()
    if state.run_id != info.run_id:
        raise CheckpointError(
            f"{found.path}: a checkpoint of another run (its run_id is {state.run_id}, this run's "
            f"{info.run_id})",
            hint="move it out of this run's checkpoints/",
        )

    evaluations = _evaluations_until(run, found, emit)
    parts, notices = resume_schedule(info, parts, found.step, is_set=is_horizon_set)
    rule = EarlyStopping.of(parts.config.evaluation)
    if found.step in evaluations:
        take_scores(state, evaluations[found.step], rule)
    is_evaluation_left = not state.is_evaluated and is_evaluation_due(parts, found.step)
    reason = (
        None if is_evaluation_left else reason_it_is_over(state.progress, rule, parts.max_steps)
    )
    if fork is not None and reason:
        raise UsageError(
            f"{fork.path}: not created, because no step is left ({reason})",
            hint=" ".join(
                f"--set {setting}" for setting in settings_to_continue(parts, state.progress)
            ),
        )
    name = info.config.name if fork is None else fork.path.name
    now = movable_config(parts.config, run).model_copy(update={"name": name})
    accepted = accepted.model_copy(update={"max_steps": parts.max_steps})
    if not reason:
        info = resumed_info(info, accepted, now, parts.execution, step=found.step, emit=emit)
    elif (accepted.test, accepted.base_model) != (info.test, info.base_model):
        info = with_other_files(info, accepted, now, step=found.step, emit=emit)
    return ResumePoint(found, fork, info, parts, state, evaluations, notices, reason)


def _find_together(run: RunDirectory, which: Which, metric: str, world: World) -> Found:
    """Find the checkpoint in rank 0, which verifies it for all processes."""
    found = world.first_alone(lambda: find_checkpoint(run, which, metric))
    chosen = world.gather(None if found is None else [found.step, *found.later])[0]
    assert chosen is not None, "rank 0 found it, or its error ended all"
    if found is None:
        path = run.checkpoint(chosen[0])
        found = Found(path, chosen[0], Snapshot.of(path), (), tuple(chosen[1:]))
    # Rank 0 compares its snapshot after this, so all have the files that it verified.
    world.gather(None)
    return found


def _pass_over_damaged(
    run: RunDirectory, found: Found, fork: RunDirectory | None, emit: Emit
) -> None:
    """Warn about damaged newer checkpoints, and rename them if the run continues in place."""
    for path, error in found.damaged:
        moved = f"set aside as {set_aside(path, below=run.path).name}, " if fork is None else ""
        emit(Notice(f"{error.message}; {moved}resuming from {found.path.name}", is_warning=True))


def _evaluations_until(run: RunDirectory, found: Found, emit: Emit) -> dict[int, EvaluationDone]:
    """Return the evaluations of earlier steps, and that of the checkpoint's own weights."""
    known = read_evaluations(run)
    for line in known.damaged[:_MAX_NAMED]:
        emit(Notice(f"{line}: damaged, so this line is ignored", is_warning=True))
    weights = weights_of(found.path)
    return {
        step: evaluation
        for step, evaluation in known.by_step.items()
        if step < found.step or (step == found.step and evaluation.weights == weights)
    }
