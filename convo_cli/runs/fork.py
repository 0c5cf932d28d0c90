"""A fork: a run that continues a checkpoint of another run in a directory of its own; nothing of the other changes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from convo_cli.config.schema import RUN_NAME
from convo_cli.errors import UsageError
from convo_cli.events import EvaluationDone
from convo_cli.runs.checkpoints import copy_checkpoint
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.event_log import copy_log
from convo_cli.runs.provenance.run_info import RunInfo, write_provenance
from convo_cli.runs.selection import Found, point_and_prune
from convo_cli.storage.atomic import disk_errors, require_space
from convo_cli.storage.files import copy_file

_LONGEST_NAME = 100


def fork_of(
    run: RunDirectory, found: Found, old_name: str, new_name: str, *, discard_later: bool
) -> RunDirectory | None:
    """The new run directory that continues this checkpoint; None where the run continues in its own.

    Another name makes a fork. So does a checkpoint that is not the newest, unless the later ones may be discarded.
    UsageError where the user asks for another name and for discarding.
    A fork lies beside the run itself, not beside a link to it, and is named after its directory, which may have been
    renamed.
    """
    place = run.path.resolve()
    if new_name != old_name:
        if discard_later:
            raise UsageError(
                f"--discard-later continues {run.path} in place, but --set name={new_name} asks for a new run",
                hint="leave out one of the two",
            )
    elif found.later and not discard_later:
        suffix = f"-from-{found.step}"
        name = place.name if re.fullmatch(RUN_NAME, place.name) else old_name
        new_name = name[: _LONGEST_NAME - len(suffix)] + suffix
    else:
        return None
    is_its_own_name = run.path.name not in ("", "..") and not run.path.is_symlink()
    return RunDirectory((run.path if is_its_own_name else place).with_name(new_name))


def fill_fork(
    fork: RunDirectory,
    parent: RunDirectory,
    found: Found,
    info: RunInfo,
    *,
    is_evaluated: bool,
    evaluations: Mapping[int, EvaluationDone],
) -> None:
    """Write the new run's provenance, its checkpoint, and the logs up to that.

    The logs include the evaluation of the checkpoint where it ``is_evaluated``.
    """
    write_provenance(fork, info)
    for old, new in ((parent.metrics, fork.metrics), (parent.samples, fork.samples)):
        copy_log(old, new, after_step=found.step, is_evaluated=is_evaluated)
    if info.config.logging.tensorboard:
        _copy_tensorboard(parent.tensorboard, fork.tensorboard)
    checkpoint = fork.checkpoint(found.step)
    copy_checkpoint(found.path, checkpoint, info.run_id)
    found.files.require_unchanged()
    point_and_prune(fork, checkpoint, keep=1, metric=info.config.evaluation.metric, evaluations=evaluations)


def _copy_tensorboard(old: Path, new: Path) -> None:
    """All events; those of later steps are hidden when the fork's own file begins."""
    files = sorted(old.glob("events.out.tfevents.*"))
    require_space(new, sum(file.lstat().st_size for file in files))
    with disk_errors(new):
        new.mkdir()
        for file in files:
            copy_file(file, new / file.name)
