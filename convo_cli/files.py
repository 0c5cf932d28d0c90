"""Files that another person may have put there: only regular ones are opened, and never through a link.

All that reads or writes inside a run directory opens by `only_regular`, and renames and deletes in a `Folder`, which is
held open, so that a directory that takes its name meanwhile changes nothing. Where a system has no directory
descriptors (Windows), paths are checked just before they are used.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}
_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_HAS_FOLDERS = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY") and hasattr(os, "O_NOFOLLOW")
_ABSENT = (FileNotFoundError, NotADirectoryError)
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
MAX_TEXT_BYTES = 2**26
"""Of a text file that is read at once; convo writes some thousand bytes into most."""


class UnsafeFileError(OSError):
    """A file is refused unread: a link, not regular, written in place under two names, or far larger than it may be."""

    def __init__(self, path: Path | str, kind: str, reason: str, hint: str) -> None:
        super().__init__(errno.EINVAL, reason, str(path))
        self.kind = kind
        self.hint = hint


def special_kind(mode: int) -> str | None:
    """The kind of file that `stat` gives this mode, in words; None for a regular file."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "not a regular file")


def special_kind_at(path: Path) -> str | None:
    """The kind of file at this path, without following a link; None for a regular file or no file."""
    try:
        return special_kind(path.lstat().st_mode)
    except _ABSENT:
        return None


def is_regular(path: Path) -> bool:
    """Whether there is a regular file at this path, which is no link."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def is_directory(path: Path) -> bool:
    """Whether there is a directory at this path, which is no link."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def require_regular(path: Path) -> None:
    """Raise UnsafeFileError where the path is a link or anything else but a regular file; a missing file is fine.

    For a library that opens by name, just before it does.
    """
    if (kind := special_kind_at(path)) is not None:
        raise _special(path, kind)


def only_regular(path: str, flags: int, *, inside: Folder | None = None) -> int:
    """An ``opener`` for `open`: a regular file, not through a link; UnsafeFileError for all else, without waiting.

    A file that is opened for writing in place has to have one name, because a hard link may be to any other file.
    """
    name: Any = path
    shown, at = (path, None) if inside is None else (inside.path / Path(path).name, inside.descriptor)
    try:
        descriptor = os.open(name, (flags | _SAFE) & ~os.O_TRUNC, 0o666, dir_fd=at)
    except OSError:
        with suppress(*_ABSENT):
            if (kind := special_kind(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)) is not None:
                raise _special(shown, kind) from None
        raise
    try:
        status = os.fstat(descriptor)
        if (kind := special_kind(status.st_mode)) is not None:
            raise _special(shown, kind)
        if not hasattr(os, "O_NOFOLLOW") and Path(shown).is_symlink():
            raise _special(shown, _KINDS[stat.S_IFLNK])
        if flags & (os.O_WRONLY | os.O_RDWR) and status.st_nlink > 1:
            raise _several_names(shown)
        if flags & os.O_TRUNC:  # not before it is known to be the right file
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_file(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The content of a regular file that is no link; UnsafeFileError also for one of more than ``limit`` bytes."""
    with open(path, "rb", opener=only_regular) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise _too_large(path, f"larger than {limit:,} bytes")
    return content


def read_lines(file: BinaryIO, limit: int = MAX_TEXT_BYTES) -> Iterator[bytes]:
    """The lines of an open file; UnsafeFileError for one of more than ``limit`` bytes."""
    while line := file.readline(limit + 1):
        if len(line) > limit:
            raise _too_large(file.name, f"a line of more than {limit:,} bytes")
        yield line


def copy_file(source: Path, to: Path, *, is_proven: bool = False) -> None:
    """Copy a regular file that is no link to a name that nothing has.

    It has one name, unless ``is_proven``: its hash says that it belongs here.
    """
    with open(source, "rb", opener=only_regular) as old, open(to, "xb", opener=only_regular) as new:
        if not is_proven:
            require_one_name(old)
        shutil.copyfileobj(old, new, 2**20)


def require_one_name(file: BinaryIO) -> None:
    """Raise UnsafeFileError where an open file has other names (hard links): it may be any file, not one of the run."""
    if os.fstat(file.fileno()).st_nlink > 1:
        raise _several_names(file.name)


class Folder:
    """A directory that is held open: what is done by it stays in it, whatever takes the directory's name."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self.descriptor = descriptor

    def open(self, name: str, mode: str) -> BinaryIO:
        """Open a regular file that is no link, in a binary mode."""
        opener = partial(only_regular, inside=self)
        return cast(BinaryIO, open(self._at(name), mode, opener=opener))  # for the caller to close

    def require_regular(self, name: str) -> None:
        """Do what `require_regular` does for an entry."""
        status = self.status(name)
        if status is not None and (kind := special_kind(status.st_mode)) is not None:
            raise _special(self.path / name, kind)

    def status(self, name: str) -> os.stat_result | None:
        """The status of an entry itself; None where there is none."""
        with suppress(*_ABSENT):
            return os.stat(self._at(name), dir_fd=self.descriptor, follow_symlinks=False)
        return None

    def names(self) -> list[str]:
        """All entries, sorted."""
        return sorted(os.listdir(self.path if self.descriptor is None else self.descriptor))  # noqa: PTH208  # takes both

    def make(self, name: str) -> None:
        os.mkdir(self._at(name), dir_fd=self.descriptor)

    def rename(self, old: str, new: str) -> None:
        os.rename(self._at(old), self._at(new), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def replace(self, old: str, new: str) -> None:
        os.replace(self._at(old), self._at(new), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def delete(self, name: str) -> None:
        """Remove a file, a folder or a link, but never what a link leads to; nothing there is fine."""
        status = self.status(name)
        if status is not None and stat.S_ISDIR(status.st_mode):
            if sys.version_info >= (3, 11):
                shutil.rmtree(self._at(name), dir_fd=self.descriptor)
            else:
                shutil.rmtree(self.path / name)
        elif status is not None:
            with suppress(*_ABSENT):
                os.unlink(self._at(name), dir_fd=self.descriptor)

    def sync(self) -> None:
        """Wait until the names in it are on the disk."""
        if self.descriptor is not None:
            os.fsync(self.descriptor)

    @contextmanager
    def inside(self, name: str) -> Iterator[Folder]:
        """Hold a directory of this one open; UnsafeFileError where it is a link or no directory."""
        path = self.path / name
        if self.descriptor is None:
            _require_directory(path)
            yield Folder(path, None)
            return
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _SAFE, dir_fd=self.descriptor)
        except OSError:
            _require_directory(path)
            raise
        try:
            yield Folder(path, descriptor)
        finally:
            os.close(descriptor)

    def is_at(self, home: Folder, name: str) -> bool:
        """Whether this directory is what has a name in another one."""
        status = home.status(name)
        return status is not None and (self.descriptor is None or os.path.samestat(status, os.fstat(self.descriptor)))

    @property
    def pinned(self) -> Path:
        """Its path; where others may rename it, one that stays with it, for libraries that open files by name."""
        if self.descriptor is not None and _is_exposed(self.path.parent):
            pinned = Path(f"/proc/{os.getpid()}/fd/{self.descriptor}")  # not self: processes of ours read there too
            if pinned.is_dir():
                return pinned
        return self.path

    def _at(self, name: str) -> str:
        return name if self.descriptor is not None else str(self.path / name)


@contextmanager
def opened(path: Path, *, below: Path | None = None) -> Iterator[Folder]:
    """Hold a directory open; UnsafeFileError where it, or one between it and ``below``, is a link or no directory.

    What leads to ``below`` is named by the user and may be a link; so may ``path`` where ``below`` is None.
    """
    start = below or path
    with ExitStack() as stack:
        descriptor = None
        if _HAS_FOLDERS:
            descriptor = os.open(start, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
        folder = Folder(start, descriptor)
        for part in path.relative_to(start).parts:
            folder = stack.enter_context(folder.inside(part))
        yield folder


def is_of_another_user(status: os.stat_result) -> bool:
    """Whether an entry belongs to a user who is neither this one nor the system's."""
    return hasattr(os, "geteuid") and status.st_uid not in (os.geteuid(), 0)


def link_of_another_user(path: Path) -> Path | None:
    """The first link on the way to a path that another user may have planted; None where there is none.

    It lies in a folder that others write to, and belongs to neither this user, the system, nor that folder's owner.
    Linux follows no such link in a sticky folder (fs.protected_symlinks); this is for every folder.
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


def _is_exposed(folder: Path) -> bool:
    """Whether other users may rename what lies in a folder."""
    status = folder.stat()
    is_shared = status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX
    return bool(is_shared) or is_of_another_user(status)


def _require_directory(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        kind = special_kind(status.st_mode) or "a file"
        raise UnsafeFileError(path, kind, f"not a directory, but {kind}", _hint(kind))


def _special(path: Path | str, kind: str) -> UnsafeFileError:
    return UnsafeFileError(path, kind, f"not a regular file, but {kind}", _hint(kind))


def _several_names(path: Path | str) -> UnsafeFileError:
    reason = "has other names too (hard links), so it may be a file of something else"
    return UnsafeFileError(path, "a file with several names", reason, "put a copy of it in its place: cp -p, then mv")


def _too_large(path: Path | str, reason: str) -> UnsafeFileError:
    return UnsafeFileError(path, reason, f"{reason}, which convo never writes there", "remove the file, or restore it")


def _hint(kind: str) -> str:
    if kind == _KINDS[stat.S_IFLNK]:
        return "convo follows no link inside a run directory: put what it leads to in its place, or remove it"
    return "choose another name, or remove it"
