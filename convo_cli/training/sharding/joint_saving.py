"""Saving of a step, by rank 0 or by all processes: its checkpoint, and which ones are best."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from convo_cli.events import Emit, EvaluationDone
from convo_cli.runs.checkpoints import is_saved
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.selection import point_and_prune
from convo_cli.training.run_parts import Parts
from convo_cli.training.saving import save_checkpoint
from convo_cli.training.sharding.whole_tensors import is_distributed
from convo_cli.training.state import TrainState
from convo_cli.world import World


def save_step(
    run: RunDirectory,
    parts: Parts,
    state: TrainState,
    evaluations: Mapping[int, EvaluationDone],
    emit: Emit,
    *,
    world: World | None = None,
    prunes: bool = False,
) -> None:
    """Publish a checkpoint of the step unless it exists, and update the pointers.

    Every process of ``world`` calls it; the default is this process alone. Rank 0 writes all files,
    except that each process writes its own part of a sharded model. If ``prunes``, only the newest
    checkpoints and the best ones are kept, as many as the config says.
    """
    world, step = world or World(), state.progress.step
    save = partial(save_checkpoint, run, state, parts.encoder, spiece=parts.spiece, emit=emit)

    def finish() -> None:
        if not is_saved(run, step):
            save()
        point_and_prune(run, run.checkpoint(step), parts.config, evaluations, prunes=prunes)

    if is_distributed(state.model) and not world.gather(is_saved(run, step))[0]:
        save(world=world)
    world.first_alone(finish)
