"""One process at a time on a run directory; the kernel frees the lock when the process ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from convo_cli.errors import CheckpointError
from convo_cli.runs.atomic import disk_errors
from convo_cli.runs.layout import RunDirectory


@contextmanager
def locked(run: RunDirectory) -> Iterator[None]:
    """Hold the run directory; CheckpointError where another process does."""
    lock = FileLock(run.lock)
    with disk_errors(run.lock):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(
                f"{run.path}: another process is working in this run directory",
                hint="wait for it to end, or train under another --set name=…",
            ) from None
    try:
        yield
    finally:
        lock.release()
