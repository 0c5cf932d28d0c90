"""Who may read and write a file, by its owner and mode; Windows, which has neither, lets everything pass.

What other users may have written is not trusted. What is derived from a file is not more readable than the file: the
modes of files and of the directories that lead to them say who may read it. Access control lists are not looked at.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_HAS_OWNERS = hasattr(os, "geteuid")


def who_else_writes(status: os.stat_result) -> str | None:
    """Why other users may have written what has this status, in words; None where they cannot.

    ``status`` is that of `lstat` or of an open file. The system's user is trusted.
    """
    if not _HAS_OWNERS:
        return None
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link"
    if status.st_uid not in (os.geteuid(), 0):
        return f"it belongs to another user (uid {status.st_uid})"
    if status.st_mode & _OTHERS_WRITE:
        return f"other users may write to it (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def take_directory(path: Path) -> str | None:
    """Make a directory that only this user can enter, or close one to the others.

    Returns why other users may have written into it nevertheless, in words; a new one is removed again then.
    """
    try:
        path.mkdir(mode=stat.S_IRWXU)
        is_new = True
    except FileExistsError:
        is_new = False
    if not _HAS_OWNERS:
        return None
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _SAFE)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            raise
        return who_else_writes(path.lstat()) or "it is not a directory"
    try:
        status = os.fstat(folder)
        reason = who_else_writes(status)
        if reason is None and status.st_mode & _OTHERS:
            with suppress(PermissionError):  # it is the system's
                os.fchmod(folder, stat.S_IMODE(status.st_mode) & ~_OTHERS)
    finally:
        os.close(folder)
    if reason is not None and is_new:
        with suppress(OSError):
            path.rmdir()
        return f"its file system does not keep who may write there (of a new folder, {reason})"
    return reason


def find_intruder(folder: Path) -> str | None:
    """The first of a folder and its files that other users may have written, and why, in words."""
    if not _HAS_OWNERS:
        return None
    for path in (folder, *sorted(folder.iterdir())):
        status = path.lstat()
        reason = who_else_writes(status)
        if reason is None and path != folder and not stat.S_ISREG(status.st_mode):
            reason = "it is not a regular file"
        if reason is not None:
            return f"{path}: {reason}"
    return None


def only_own(path: str, flags: int) -> int:
    """An ``opener`` for `open`: a regular file of this user or the system, not through a link; else PermissionError."""
    descriptor = os.open(path, flags | _SAFE)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or (_HAS_OWNERS and status.st_uid not in (os.geteuid(), 0)):
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "not a regular file of this user", path)
    return descriptor


def readable_by(sources: Iterable[str | Path], place: Path) -> int:
    """Mode bits for what is derived from ``sources`` and lies at ``place``: none for those who cannot read a source.

    The bits are those of a directory, to be taken from what the umask allows. ``-`` is stdin; of a pipe only its user
    can read. A directory that leads to a source and to the place protects both, so it does not count.
    """
    if not _HAS_OWNERS:
        return stat.S_IRWXU | _OTHERS
    group = _group_at(place)
    bits = _OTHERS
    leads_there = {*place.absolute().parents, *place.resolve().parents}
    for source in sources:
        with suppress(OSError):  # it cannot be read at all
            status = os.fstat(0) if source == "-" else Path(source).stat()
            bits &= _others_with(status, group, stat.S_IRGRP, stat.S_IROTH)
        with suppress(OSError):
            for folder in {*Path(source).absolute().parents, *Path(source).resolve().parents} - leads_there:
                bits &= _others_with(folder.stat(), group, stat.S_IXGRP, stat.S_IXOTH)
    return stat.S_IRWXU | bits


@contextmanager
def masked(allowed: int) -> Iterator[None]:
    """Give what is created inside the block no other mode bits than these, beside those that the umask takes."""
    before = os.umask(0o077)
    os.umask(before | 0o777 & ~allowed)
    try:
        yield
    finally:
        os.umask(before)


def close_directory(path: Path, allowed: int) -> bool:
    """Take from a directory's mode what is not ``allowed``; whether it has no more than that now."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if _HAS_OWNERS and mode & _OTHERS & ~allowed:
        with suppress(PermissionError):  # of another user, or a file system without modes
            path.chmod(mode & ~(_OTHERS & ~allowed))
        mode = path.stat().st_mode
    return not _HAS_OWNERS or not mode & _OTHERS & ~allowed


def _others_with(status: os.stat_result, group: int, for_group: int, for_others: int) -> int:
    """The bits of the others who have such a right: ``group`` is who is asked about, whatever the file's own group."""
    all_have = bool(status.st_mode & for_others)
    members_have = bool(status.st_mode & for_group)
    is_for_group = members_have if status.st_gid == group else members_have and all_have
    return (stat.S_IRWXG if is_for_group else 0) | (stat.S_IRWXO if members_have and all_have else 0)


def _group_at(place: Path) -> int:
    """The group of a directory that is there, or that a new file or directory there gets."""
    if place.is_dir():
        return place.stat().st_gid
    above = next((folder for folder in place.absolute().parents if folder.exists()), Path())
    status = above.stat()
    return status.st_gid if status.st_mode & stat.S_ISGID or sys.platform == "darwin" else os.getegid()
