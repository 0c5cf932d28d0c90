"""Lock of a run directory for one process at a time; the kernel frees it when the process ends."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import RawIOBase

from filelock import FileLock, Timeout

from convo_cli.errors import CheckpointError, DiskError
from convo_cli.runs.directory import RunDirectory, require_own_files
from convo_cli.storage.atomic import disk_errors
from convo_cli.storage.files import only_regular, require_regular

_CANNOT_LOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
_HOLDER = re.compile(r"process \d{1,20} on [\w.-]{1,255}\n")


@contextmanager
def locked(run: RunDirectory) -> Iterator[None]:
    """Hold the lock of a run directory; CheckpointError if another process holds it.

    DiskError if the file system cannot lock files.
    """
    lock = FileLock(run.lock, fallback_to_soft=False)
    with disk_errors(run.lock):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(
                f"{run.path}: {_holder(run)} is using this run directory",
                hint="wait until it ends, or start another run with --set name=…",
            ) from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                require_regular(run.lock)  # names the link
            if error.errno not in _CANNOT_LOCK:
                raise
            raise DiskError(
                f"{run.lock}: this file system cannot lock files ({error.strerror}), so convo "
                "cannot keep a second process from writing to the same run",
                hint="choose a folder on another file system with --set output_dir=…, or mount "
                "this one with locks",
            ) from error
    try:
        with disk_errors(run.lock):
            opened = open(run.lock, "r+b", buffering=0, opener=only_regular)  # noqa: SIM115  # closed below; a rename may move it before
        with opened as file:
            _write(file, f"process {os.getpid()} on {socket.gethostname()}\n")
            try:
                require_own_files(run)
                yield
            finally:
                _write(file, "")
    finally:
        lock.release()


def _write(file: RawIOBase, holder: str) -> None:
    """Write the holder into the lock file.

    The lock itself is the kernel's, so stale or missing text does no harm.
    """
    with suppress(OSError):
        file.seek(0)
        file.truncate()
        file.write(holder.encode())


def _holder(run: RunDirectory) -> str:
    with suppress(OSError, UnicodeDecodeError), open(run.lock, "rb", opener=only_regular) as file:
        text = file.read(300).decode()
        if _HOLDER.fullmatch(text):
            return text.strip()
    return "another process"
