"""A run directory that appears whole, with everything that `resume` needs, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from convo_cli.errors import CheckpointError
from convo_cli.runs.atomic import disk_errors, make_directory, sync_directory
from convo_cli.runs.layout import RunDirectory, require_new
from convo_cli.runs.lock import locked

_ASIDE = ".convo-new-"
"""Begins no run's name; what a killed process left there, the next one of that name clears away."""


@contextmanager
def begun(run: RunDirectory, fill: Callable[[RunDirectory], None]) -> Iterator[None]:
    """Have ``fill`` write into a run directory beside its place, put it there, and hold its lock inside the block.

    CheckpointError where a run of this name is there already, or begins at the same time.
    """
    aside = RunDirectory(run.path.with_name(f"{_ASIDE}{run.path.name}"))
    if aside.path.is_symlink():
        raise CheckpointError(f"{aside.path}: a symbolic link where a run begins", hint="remove the link")
    if not run.path.parent.exists():
        make_directory(run.path.parent)
    with disk_errors(aside.path):
        aside.path.mkdir(exist_ok=True)
    with locked(aside):  # the lock is on the open file, so it goes with the directory when that is renamed
        try:
            _clear(aside)
            make_directory(aside.checkpoints)
            fill(aside)
            require_new(run)  # again: preparing may have taken minutes
            with disk_errors(run.path):
                os.rename(aside.path, run.path)
        except BaseException:
            shutil.rmtree(aside.path, ignore_errors=True)
            raise
        with disk_errors(run.path):
            sync_directory(run.path.parent)
        yield


def _clear(aside: RunDirectory) -> None:
    with disk_errors(aside.path):
        for path in aside.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path != aside.lock:
                path.unlink()
