"""Creation of a run directory: it appears whole, with everything that `resume` needs, or not at
all.
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
"""No run name begins with this. The next run of the same name removes the remains of a killed
process.
"""
_ELSEWHERE = "remove it, or choose another place with --set name=… or --set output_dir=…"


@contextmanager
def begun(run: RunDirectory, fill: Callable[[RunDirectory], None]) -> Iterator[None]:
    """Have ``fill`` write into a temporary run directory, rename it to ``run``, and hold its lock
    inside the block.

    CheckpointError if a run of this name exists already or begins at the same time.
    """
    aside = RunDirectory(run.path.with_name(f"{_ASIDE}{run.path.name}"))
    if not run.path.parent.exists():
        make_directory(run.path.parent)
    with ExitStack() as held:
        with disk_errors(aside.path):
            home = held.enter_context(open_folder(run.path.parent))
            new = held.enter_context(home.inside(_make_aside(home, aside.path)))
        # The lock is on the open file, so it stays with the directory when that is renamed.
        held.enter_context(locked(aside))
        try:
            with disk_errors(aside.path):
                for name in new.names():
                    if name != aside.lock.name:
                        new.delete(name)
                new.make(aside.checkpoints.name)
            fill(RunDirectory(new.pinned))
            require_new(run)  # again: the preparation may have taken minutes
            with disk_errors(run.path):
                home.rename(aside.path.name, run.path.name)
        except BaseException:
            with suppress(OSError):
                home.delete(aside.path.name)
            raise
        if not new.is_at(home, run.path.name):
            raise CheckpointError(
                f"{run.path}: another process created a directory there meanwhile", hint=_ELSEWHERE
            )
        with disk_errors(run.path):
            sync_directory(run.path.parent)
        yield


def _make_aside(home: Folder, aside: Path) -> str:
    """Create the temporary directory of a run, or take over that of a killed process; return its
    name.
    """
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
