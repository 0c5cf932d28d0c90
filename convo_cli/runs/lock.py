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
_HOLDER = re.compile(r"process (?P<pid>\d{1,9}) on (?P<host>[\w.-]{1,255})\n")


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


def is_in_use(run: RunDirectory) -> bool:
    """Return whether a process seems to hold the lock, by the text in the lock file.

    The lock itself is not tried, because a run that starts at that moment would be refused.
    """
    found = _HOLDER.fullmatch(_text(run))
    if found is None or found["host"] != socket.gethostname():
        return found is not None
    import psutil  # a tenth of a second, and only the report needs it

    return bool(psutil.pid_exists(int(found["pid"])))  # False after a kill


def _write(file: RawIOBase, holder: str) -> None:
    """Write the holder into the lock file.

    The lock itself is the kernel's, so stale or missing text does no harm.
    """
    with suppress(OSError):
        file.seek(0)
        file.truncate()
        file.write(holder.encode())


def _holder(run: RunDirectory) -> str:
    text = _text(run)
    return text.strip() if _HOLDER.fullmatch(text) else "another process"


def _text(run: RunDirectory) -> str:
    with suppress(OSError, UnicodeDecodeError), open(run.lock, "rb", opener=only_regular) as file:
        return file.read(300).decode()
    return ""
