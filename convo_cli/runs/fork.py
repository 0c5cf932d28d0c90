"""Forks: new runs that continue a checkpoint of another run and leave that run unchanged."""

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
from convo_cli.runs.tokenizer_folder import copy_tokenizer
from convo_cli.storage.atomic import disk_errors, require_space
from convo_cli.storage.files import copy_file

_LONGEST_NAME = 100


def fork_of(
    run: RunDirectory, found: Found, old_name: str, new_name: str, *, discard_later: bool
) -> RunDirectory | None:
    """Return the new run directory for this checkpoint; None if the run continues in its own.

    Another name makes a fork, and so does a checkpoint that is not the newest, unless later ones
    may be discarded. UsageError if the user asks for both another name and discarding. A fork is
    created next to the run itself, not next to a link to it, and is named after the run's
    directory, which may have been renamed.
    """
    place = run.path.resolve()
    if new_name != old_name:
        if discard_later:
            raise UsageError(
                f"--discard-later continues {run.path} in place, but --set name={new_name} asks "
                "for a new run",
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
    """Write the provenance of the new run, its checkpoint, and the logs up to the checkpoint.

    The logs include the evaluation of the checkpoint if it ``is_evaluated``.
    """
    write_provenance(fork, info)
    for old, new in ((parent.metrics, fork.metrics), (parent.samples, fork.samples)):
        copy_log(old, new, after_step=found.step, is_evaluated=is_evaluated)
    if info.config.logging.tensorboard:
        _copy_tensorboard(parent.tensorboard, fork.tensorboard)
    checkpoint = fork.checkpoint(found.step)
    copy_checkpoint(found.path, checkpoint, info.run_id)
    found.files.require_unchanged()
    copy_tokenizer(fork, checkpoint)
    point_and_prune(fork, checkpoint, info.config, evaluations)


def _copy_tensorboard(old: Path, new: Path) -> None:
    """Copy all events; the start of the fork's own file hides those of later steps."""
    files = sorted(old.glob("events.out.tfevents.*"))
    require_space(new, sum(file.lstat().st_size for file in files))
    with disk_errors(new):
        new.mkdir()
        for file in files:
            copy_file(file, new / file.name)
