"""Saving of a step: its checkpoint and the pointers to the best ones, by one process or by all."""

from __future__ import annotations

from collections.abc import Mapping

from convo_cli.events import Emit, EvaluationDone
from convo_cli.runs.checkpoints import is_saved
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.selection import point_and_prune
from convo_cli.training.build import Parts
from convo_cli.training.saving import save_checkpoint
from convo_cli.training.sharding.whole_tensors import is_distributed
from convo_cli.training.state import TrainState


def save_together(
    run: RunDirectory,
    parts: Parts,
    state: TrainState,
    evaluations: Mapping[int, EvaluationDone],
    emit: Emit,
    *,
    prunes: bool = False,
) -> None:
    """Do what `save_and_point` does; every process of the world calls it.

    If each has a part of the model, each writes it.
    """
    world, step = parts.world, state.progress.step

    def finish() -> None:
        save_and_point(run, parts, state, evaluations, emit, prunes=prunes)

    if is_distributed(state.model) and not world.gather(is_saved(run, step))[0]:
        spiece = parts.spiece
        save_checkpoint(run, state, parts.encoder, spiece=spiece, emit=emit, world=world)
    world.first_alone(finish)


def save_and_point(
    run: RunDirectory,
    parts: Parts,
    state: TrainState,
    evaluations: Mapping[int, EvaluationDone],
    emit: Emit,
    *,
    prunes: bool = False,
) -> None:
    """Publish a checkpoint of the step unless it exists, and update the pointers.

    If ``prunes``, only the newest and the best checkpoints of the config are kept.
    """
    step = state.progress.step
    if not is_saved(run, step):
        save_checkpoint(run, state, parts.encoder, spiece=parts.spiece, emit=emit)
    point_and_prune(run, run.checkpoint(step), parts.config, evaluations, prunes=prunes)
