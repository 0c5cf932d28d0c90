"""Creation of a run directory: it appears with everything that `resume` needs, or not at all.

It is filled under a temporary name, renamed, and locked from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from convo_cli.errors import CheckpointError
from convo_cli.runs.directory import RunDirectory, require_new
from convo_cli.runs.lock import locked
from convo_cli.storage.access import is_of_another_user
from convo_cli.storage.atomic import disk_errors, make_directory, sync_directory
from convo_cli.storage.folder import Folder, open_folder

_ASIDE = ".convo-new-"
"""Prefix of the temporary name; no run name begins with it.

The next run of the same name removes the remains of a killed process.
"""
_ELSEWHERE = "remove it, or use another directory: --set name=… or --set output_dir=…"


@contextmanager
def begun(run: RunDirectory, fill: Callable[[RunDirectory], None]) -> Iterator[None]:
    """Create the run directory with what ``fill`` writes, and hold its lock inside the block.

    CheckpointError if a run of this name exists already or begins at the same time.
    """
    with _filled(run, fill) as (home, new):
        with disk_errors(run.path):
            home.rename(_aside(run).name, run.path.name)
        if not new.is_at(home, run.path.name):
            raise CheckpointError(
                f"{run.path}: another process created a directory there in the meantime",
                hint=_ELSEWHERE,
            )
        with disk_errors(run.path):
            sync_directory(run.path.parent)
        yield


def rehearse(run: RunDirectory, fill: Callable[[RunDirectory], None]) -> None:
    """Do what `begun` does, with the same errors, but leave no run directory."""
    with _filled(run, fill):
        pass


@contextmanager
def _filled(
    run: RunDirectory, fill: Callable[[RunDirectory], None]
) -> Iterator[tuple[Folder, Folder]]:
    """Yield the parent folder and the filled, locked temporary directory.

    The directory is deleted at the end unless the block renames it.
    """
    aside = _aside(run)
    if not run.path.parent.exists():
        make_directory(run.path.parent)
    with ExitStack() as held:
        with disk_errors(aside):
            home = held.enter_context(open_folder(run.path.parent))
            new = held.enter_context(home.inside(_make(home, aside)))
        # The lock is on the open file, so it stays with the directory when that is renamed.
        held.enter_context(locked(RunDirectory(aside)))
        try:
            with disk_errors(aside):
                for name in new.names():
                    if name != run.lock.name:
                        new.delete(name)
                new.make(run.checkpoints.name)
            fill(RunDirectory(new.pinned))
            require_new(run)  # again: the preparation may have taken minutes
            yield home, new
        finally:
            with suppress(OSError):
                if new.is_at(home, aside.name):
                    home.delete(aside.name)


def _aside(run: RunDirectory) -> Path:
    return run.path.with_name(f"{_ASIDE}{run.path.name}")


def _make(home: Folder, aside: Path) -> str:
    """Create the temporary directory, or take over that of a killed process; return its name."""
    try:
        home.make(aside.name)
    except FileExistsError:
        status = home.status(aside.name)
        if aside.is_symlink():
            raise CheckpointError(
                f"{aside}: a symbolic link, so no run can be created there", hint="remove the link"
            ) from None
        if status is not None and is_of_another_user(status):
            raise CheckpointError(
                f"{aside}: belongs to another user, so no run can be created there", hint=_ELSEWHERE
            ) from None
    return aside.name
