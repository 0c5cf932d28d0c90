"""Owners and modes of files: which files to trust, and who may read derived files.

convo trusts files that belong to this user or to root and that no other user may write to. Derived
files are no more readable than their sources, including the directories that lead to them. Access
control lists are ignored. Windows has neither owners nor modes, so every check passes there.
"""

from __future__ import annotations

import atexit
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from convo_cli.storage.files import SAFE_FLAGS, only_regular

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_HAS_OWNERS = hasattr(os, "geteuid")


def is_of_another_user(status: os.stat_result) -> bool:
    """Return whether a file belongs to neither this user nor root."""
    return _HAS_OWNERS and status.st_uid not in (os.geteuid(), 0)


def is_exposed(directory: Path) -> bool:
    """Return whether other users may rename the entries of a directory."""
    status = directory.stat()
    is_shared = status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX
    return bool(is_shared) or is_of_another_user(status)


def link_of_another_user(path: Path) -> Path | None:
    """Return the first link on the way to a path that another user may have planted, or None.

    Such a link is in a directory that others may write to, and belongs to neither this user, root,
    nor the owner of that directory. Linux refuses to follow it only in a sticky directory
    (fs.protected_symlinks).
    """
    place = path.absolute()
    for link in reversed([place, *place.parents]):
        with suppress(OSError):
            status, above = link.lstat(), link.parent.stat()
            if (
                stat.S_ISLNK(status.st_mode)
                and above.st_mode & _OTHERS_WRITE
                and is_of_another_user(status)
                and status.st_uid != above.st_uid
            ):
                return link
    return None


def reason_to_distrust(status: os.stat_result) -> str | None:
    """Return why another user could have written the file with this status; None if none could.

    ``status`` is that of `lstat` or of an open file.
    """
    if not _HAS_OWNERS:
        return None
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link"
    if is_of_another_user(status):
        return f"it belongs to another user (uid {status.st_uid})"
    if status.st_mode & _OTHERS_WRITE:
        return f"other users may write to it (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def make_private(directory: Path) -> str | None:
    """Make a directory private to this user; create it if it does not exist.

    Returns the reason if another user could still have written into it; a directory created here is
    then removed.
    """
    try:
        directory.mkdir(mode=stat.S_IRWXU)
        is_new = True
    except FileExistsError:
        is_new = False
    if not _HAS_OWNERS:
        return None
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | SAFE_FLAGS)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            raise
        return reason_to_distrust(directory.lstat()) or "it is not a directory"
    try:
        status = os.fstat(descriptor)
        reason = reason_to_distrust(status)
        if reason is None and status.st_mode & _OTHERS:
            with suppress(PermissionError):  # it belongs to root
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~_OTHERS)
    finally:
        os.close(descriptor)
    if reason is not None and is_new:
        with suppress(OSError):
            directory.rmdir()
        return f"its file system does not store owners and modes (it is new, but {reason})"
    return reason


def find_untrusted(directory: Path) -> str | None:
    """Return path and reason of the first file that another user could have written, or None.

    The directory itself comes first.
    """
    if not _HAS_OWNERS:
        return None
    for path in (directory, *sorted(directory.iterdir())):
        status = path.lstat()
        reason = reason_to_distrust(status)
        if reason is None and path != directory and not stat.S_ISREG(status.st_mode):
            reason = "it is not a regular file"
        if reason is not None:
            return f"{path}: {reason}"
    return None


def only_own(path: str, flags: int) -> int:
    """Open a regular file, not through a link: an ``opener`` for `open`.

    PermissionError if it belongs to another user.
    """
    descriptor = only_regular(path, flags)
    if is_of_another_user(os.fstat(descriptor)):
        os.close(descriptor)
        raise PermissionError(errno.EPERM, "belongs to another user", path)
    return descriptor


def derived_mode(sources: Iterable[str | Path], place: Path) -> int:
    """Return the most mode bits that a file at ``place`` that comes from ``sources`` may have.

    Group and others get bits only if they can read every source. The bits are those of a directory,
    and the umask still applies. ``-`` is stdin; a pipe counts as readable only by this user. A
    directory that contains both a source and the place protects both, so its mode does not count.
    """
    if not _HAS_OWNERS:
        return stat.S_IRWXU | _OTHERS
    group = _group_at(place)
    bits = _OTHERS
    leads_there = {*place.absolute().parents, *place.resolve().parents}
    for source in sources:
        with suppress(OSError):  # this user cannot read it either
            status = os.fstat(0) if source == "-" else Path(source).stat()
            bits &= _bits_with(status, group, stat.S_IRGRP, stat.S_IROTH)
        with suppress(OSError):
            above = {*Path(source).absolute().parents, *Path(source).resolve().parents}
            for directory in above - leads_there:
                bits &= _bits_with(directory.stat(), group, stat.S_IXGRP, stat.S_IXOTH)
    return stat.S_IRWXU | bits


@contextmanager
def masked(allowed: int) -> Iterator[None]:
    """Create files inside the block with mode bits limited by ``allowed`` and the umask."""
    before = os.umask(0o077)
    os.umask(before | 0o777 & ~allowed)
    try:
        yield
    finally:
        os.umask(before)


def restrict_directory(path: Path, allowed: int) -> bool:
    """Clear the mode bits of a directory beyond ``allowed``; return whether that succeeded."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if _HAS_OWNERS and mode & _OTHERS & ~allowed:
        with suppress(PermissionError):  # another user's directory, or a file system without modes
            path.chmod(mode & ~(_OTHERS & ~allowed))
        mode = path.stat().st_mode
    return not _HAS_OWNERS or not mode & _OTHERS & ~allowed


def _bits_with(status: os.stat_result, group: int, for_group: int, for_others: int) -> int:
    """Return the bits that ``group`` and others may have, because they have the right here."""
    members_have = bool(status.st_mode & for_group)
    all_have = members_have and bool(status.st_mode & for_others)
    bits = stat.S_IRWXO if all_have else 0
    if all_have or (members_have and status.st_gid == group):
        bits |= stat.S_IRWXG
    return bits


def _group_at(place: Path) -> int:
    """Return the group of an existing directory, or the one that a new entry there gets."""
    if place.is_dir():
        return place.stat().st_gid
    existing = (directory for directory in place.absolute().parents if directory.exists())
    status = next(existing, Path()).stat()
    is_inherited = status.st_mode & stat.S_ISGID or sys.platform == "darwin"
    return status.st_gid if is_inherited else os.getegid()


def is_writable(folder: Path) -> bool:
    """Return whether this user can write to a directory, or create it."""
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return above.is_dir() and os.access(above, os.W_OK | os.X_OK)


def temporary_directory() -> Path:
    """Create a directory of this user that is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="convo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
