"""Opening of files that another user may have planted: only regular files, never through a link.

Every file inside a run directory is opened with `only_regular`; `convo_cli.storage.folder` does the
same for directories.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_LINK = "a symbolic link"
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: _LINK,
}
SAFE_FLAGS = (
    getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
)
"""Flags with which `os.open` follows no link and does not wait for the other end of a pipe."""
ABSENT = (FileNotFoundError, NotADirectoryError)
"""Errors that mean that there is no file at a path."""
MAX_READ_BYTES = 2**26
"""Largest text file that is read at once, 64 MiB; most of convo's own have a few thousand bytes."""
_BLOCK_BYTES = 2**20


class UnsafeFileError(OSError):
    """A refused file: it is a link, not regular, or too large, or has other names (hard links)."""

    def __init__(self, path: Path | str, kind: str, reason: str, hint: str) -> None:
        super().__init__(errno.EINVAL, reason, str(path))
        self.kind = kind
        self.hint = hint


def special_kind(mode: int) -> str | None:
    """Name the kind of file that has this `stat` mode; None for a regular file."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "not a regular file")


def special_kind_at(path: Path) -> str | None:
    """Name the kind of file at this path, not following a link; None if it is regular or absent."""
    try:
        return special_kind(path.lstat().st_mode)
    except ABSENT:
        return None


def is_regular(path: Path) -> bool:
    """Return whether this path is a regular file, not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def is_directory(path: Path) -> bool:
    """Return whether this path is a directory, not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def require_regular(path: Path) -> None:
    """Raise UnsafeFileError for a link or anything else that exists and is not a regular file.

    Call it just before a library opens the file by name.
    """
    with suppress(*ABSENT):
        require_regular_mode(path, path.lstat().st_mode)


def require_regular_mode(path: Path | str, mode: int) -> None:
    """Raise UnsafeFileError naming the path, unless this `stat` mode is that of a regular file."""
    if (kind := special_kind(mode)) is not None:
        raise UnsafeFileError(path, kind, f"not a regular file, but {kind}", _hint(kind))


def require_directory(path: Path) -> None:
    """Raise UnsafeFileError for a link and for anything else that is not a directory."""
    mode = path.lstat().st_mode
    if not stat.S_ISDIR(mode):
        kind = special_kind(mode) or "a file"
        raise UnsafeFileError(path, kind, f"not a directory, but {kind}", _hint(kind))


def only_regular(
    path: str, flags: int, *, dir_fd: int | None = None, shown: Path | None = None
) -> int:
    """Open a regular file, not through a link, without waiting: an ``opener`` for `open`.

    UnsafeFileError names ``shown`` (by default the path) if it is anything else. A file that is
    opened to be written in place must have only one name, because a hard link could make it any
    other file.
    """
    named = shown or path
    try:
        descriptor = os.open(path, (flags | SAFE_FLAGS) & ~os.O_TRUNC, 0o666, dir_fd=dir_fd)
    except OSError:
        with suppress(*ABSENT):
            require_regular_mode(named, os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mode)
        raise
    try:
        status = os.fstat(descriptor)
        require_regular_mode(named, status.st_mode)
        if not hasattr(os, "O_NOFOLLOW") and Path(named).is_symlink():
            require_regular_mode(named, stat.S_IFLNK)
        if flags & (os.O_WRONLY | os.O_RDWR) and status.st_nlink > 1:
            raise _several_names(named)
        if flags & os.O_TRUNC:  # only after the checks above
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_file(path: Path, limit: int = MAX_READ_BYTES) -> bytes:
    """Read a regular file that is not a link; UnsafeFileError if it exceeds ``limit`` bytes."""
    blocks, left = list[bytes](), limit + 1
    with open(path, "rb", opener=only_regular) as file:
        while block := file.read(min(left, _BLOCK_BYTES)):  # read() allocates its whole size first
            blocks.append(block)
            left -= len(block)
    if left <= 0:
        raise _too_large(path, f"larger than {limit:,} bytes")
    return b"".join(blocks)


def read_linked(path: Path, max_bytes: int = MAX_READ_BYTES) -> bytes:
    """Read a text file as `read_file` does, also through a link, as in the hub's cache."""
    return read_file(Path(os.path.realpath(path)), max_bytes)


def read_lines(file: BinaryIO, limit: int = MAX_READ_BYTES) -> Iterator[bytes]:
    """Yield the lines of an open file; UnsafeFileError for a line of more than ``limit`` bytes."""
    while line := file.readline(limit + 1):
        if len(line) > limit:
            raise _too_large(file.name, f"a line of more than {limit:,} bytes")
        yield line


def copy_file(source: Path, to: Path, *, is_proven: bool = False) -> None:
    """Copy a regular file that is not a link to a path that does not exist yet.

    The source must have only one name, unless it ``is_proven`` by its hash to belong to the run.
    """
    with open(source, "rb", opener=only_regular) as old, open(to, "xb", opener=only_regular) as new:
        if not is_proven:
            require_one_name(old)
        shutil.copyfileobj(old, new, 2**20)


def require_one_name(file: BinaryIO) -> None:
    """Raise UnsafeFileError if an open file has other hard links: it could be any of the user's."""
    if os.fstat(file.fileno()).st_nlink > 1:
        raise _several_names(file.name)


def _several_names(path: Path | str) -> UnsafeFileError:
    reason = "has several names (hard links), so it may also be a file outside the run"
    return UnsafeFileError(
        path, "a file with several names", reason, "replace it with a copy: cp -p, then mv"
    )


def _too_large(path: Path | str, reason: str) -> UnsafeFileError:
    reason_and_why = f"{reason}, and convo writes no such file there"
    return UnsafeFileError(
        path, reason, reason_and_why, "remove the file, or restore it from a copy"
    )


def _hint(kind: str) -> str:
    if kind == _LINK:
        return "convo does not follow this link: replace it with its target, or remove it"
    return "choose another name, or remove it"
