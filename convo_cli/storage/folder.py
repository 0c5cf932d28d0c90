"""Directories that are held open, so that another user cannot redirect operations inside them.

convo renames and deletes inside a run directory through a `Folder`, so it does not matter if
another directory or a link takes its name meanwhile. Without directory descriptors (Windows), each
path is checked just before its use.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from convo_cli.storage.access import is_exposed
from convo_cli.storage.files import (
    ABSENT,
    SAFE_FLAGS,
    only_regular,
    require_directory,
    require_regular_mode,
)

_HAS_DESCRIPTORS = (
    os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY") and hasattr(os, "O_NOFOLLOW")
)


class Folder:
    """A directory that is held open; its methods act in it even if another one takes its name."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self.descriptor = descriptor

    def open(self, name: str, mode: str) -> BinaryIO:
        """Open a regular file that is not a link, in a binary mode."""
        opener = partial(only_regular, dir_fd=self.descriptor, shown=self.path / name)
        return cast(BinaryIO, open(self._at(name), mode, opener=opener))  # for the caller to close

    def require_regular(self, name: str) -> None:
        """Raise UnsafeFileError for an entry that is not a regular file; a missing one is fine."""
        if (status := self.status(name)) is not None:
            require_regular_mode(self.path / name, status.st_mode)

    def status(self, name: str) -> os.stat_result | None:
        """Return the status of an entry, without following a link; None if there is none."""
        with suppress(*ABSENT):
            return os.stat(self._at(name), dir_fd=self.descriptor, follow_symlinks=False)
        return None

    def names(self) -> list[str]:
        """Return the names of all entries, sorted."""
        return sorted(os.listdir(self.path if self.descriptor is None else self.descriptor))  # noqa: PTH208  # takes both

    def make(self, name: str) -> None:
        os.mkdir(self._at(name), dir_fd=self.descriptor)

    def rename(self, old: str, new: str) -> None:
        os.rename(
            self._at(old), self._at(new), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor
        )

    def replace(self, old: str, new: str) -> None:
        os.replace(
            self._at(old), self._at(new), src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor
        )

    def delete(self, name: str) -> None:
        """Remove a file, directory or link, never the target of a link; a missing one is fine."""
        status = self.status(name)
        if status is not None and stat.S_ISDIR(status.st_mode):
            if sys.version_info >= (3, 11):
                shutil.rmtree(self._at(name), dir_fd=self.descriptor)
            else:
                shutil.rmtree(self.path / name)
        elif status is not None:
            with suppress(*ABSENT):
                os.unlink(self._at(name), dir_fd=self.descriptor)

    def sync(self) -> None:
        """Wait until the names in the directory are on the disk."""
        if self.descriptor is not None:
            os.fsync(self.descriptor)

    @contextmanager
    def inside(self, name: str) -> Iterator[Folder]:
        """Hold a directory of this one open; UnsafeFileError if it is a link or not a directory."""
        path = self.path / name
        if self.descriptor is None:
            require_directory(path)
            yield Folder(path, None)
            return
        try:
            descriptor = os.open(
                name, os.O_RDONLY | os.O_DIRECTORY | SAFE_FLAGS, dir_fd=self.descriptor
            )
        except OSError:
            require_directory(path)
            raise
        try:
            yield Folder(path, descriptor)
        finally:
            os.close(descriptor)

    def is_at(self, home: Folder, name: str) -> bool:
        """Return whether this directory is the entry of that name in another one."""
        status = home.status(name)
        return status is not None and (
            self.descriptor is None or os.path.samestat(status, os.fstat(self.descriptor))
        )

    @property
    def pinned(self) -> Path:
        """Return a path for libraries; it stays valid if other users rename the directory."""
        if self.descriptor is not None and is_exposed(self.path.parent):
            # Not /proc/self: child processes read the path too.
            pinned = Path(f"/proc/{os.getpid()}/fd/{self.descriptor}")
            if pinned.is_dir():
                return pinned
        return self.path

    def _at(self, name: str) -> str:
        return name if self.descriptor is not None else str(self.path / name)


@contextmanager
def open_folder(path: Path, *, below: Path | None = None) -> Iterator[Folder]:
    """Hold a directory open; UnsafeFileError if a directory from ``below`` down to it is a link.

    The user names ``below``, so it may be reached through a link; without it, ``path`` itself may
    be a link.
    """
    start = below or path
    with ExitStack() as stack:
        descriptor = None
        if _HAS_DESCRIPTORS:
            descriptor = os.open(start, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
        folder = Folder(start, descriptor)
        for part in path.relative_to(start).parts:
            folder = stack.enter_context(folder.inside(part))
        yield folder


def delete(path: Path) -> None:
    """Remove a file, directory or link, never the target of a link; a missing one is fine."""
    with open_folder(path.parent) as home:
        home.delete(path.name)
