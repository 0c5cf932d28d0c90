"""Kinds of files that are not regular (directories, pipes, devices, links), in the words of messages."""

from __future__ import annotations

import stat
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}


def special_kind(mode: int) -> str | None:
    """The kind of file that `stat` gives this mode, in words; None for a regular file."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "not a regular file")


def special_kind_at(path: Path) -> str | None:
    """The kind of file at this path, without following a link; None for a regular file or no file."""
    try:
        return special_kind(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
