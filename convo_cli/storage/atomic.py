"""Atomic writes of files and directories.

They are written under a temporary name, flushed and renamed, and the rename is flushed too.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO

from convo_cli.errors import ConvoError, DiskError, refused_by_system
from convo_cli.storage.files import UnsafeFileError, only_regular
from convo_cli.storage.folder import Folder, open_folder
from convo_cli.storage.sealed import MANIFEST_FILE, Seal, sealed_manifest

_ASIDE = ".tmp-"
_REPLACED = ".replaced"
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")

_SHORT_WRITE = re.compile(r"[0-9]+ requested and [0-9]+ written")
_INTACT = "; what was saved before is intact"
_ELSEWHERE = "choose another folder (for a run: --set output_dir=…)"
_HINTS = {
    errno.ENOSPC: f"free some space, or {_ELSEWHERE}",
    errno.EDQUOT: f"your disk quota there is used up: delete some of your files, or {_ELSEWHERE}",
    errno.EROFS: f"mount it read-write, or {_ELSEWHERE}",
    errno.EACCES: f"you need write permission there (see `ls -ld`), or {_ELSEWHERE}",
    errno.EPERM: f"you need write permission there (see `ls -ld` and `lsattr -d`), or {_ELSEWHERE}",
    errno.EIO: f"the disk reported an error: see the kernel's log (dmesg), and {_ELSEWHERE}",
}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn write errors of the operating system into a DiskError that names the path."""
    try:
        yield
    except ConvoError:
        raise
    except UnsafeFileError as error:
        raise DiskError(f"{error.filename or path}: {error.strerror}", hint=error.hint) from error
    except Exception as error:
        if refusal := refused_by_system(error):
            raise refusal from error
        if isinstance(error, OSError):
            number, reason = error.errno, error.strerror or str(error)
            if number is None and _SHORT_WRITE.fullmatch(reason):  # of numpy's tofile
                number, reason = errno.ENOSPC, os.strerror(errno.ENOSPC)
        elif match := _RUST_ERROR.search(str(error)):  # of safetensors or tokenizers
            number = int(match.group(1))
            reason = os.strerror(number)
        else:
            raise
        hint = _HINTS.get(number or 0, _ELSEWHERE) + _INTACT
        raise DiskError(f"{path}: {reason}", hint=hint) from error


def require_space(path: Path, num_bytes: int) -> None:
    """Raise DiskError if the file system of the future ``path`` has less free space than this."""
    with disk_errors(path):
        total, _, free = shutil.disk_usage(path.parent)
    if total and free < num_bytes:  # a total of 0: the file system reports no sizes
        raise DiskError(
            f"{path}: needs {_mebibytes(num_bytes)}, but only {_mebibytes(free)} is free in "
            f"{path.parent}",
            hint=_HINTS[errno.ENOSPC] + _INTACT,
        )


def make_directory(path: Path) -> None:
    """Create a directory and its missing parents, so that a power cut does not lose their names."""
    with disk_errors(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True)
        for folder in missing:
            sync_directory(folder.parent)


def write_file(path: Path, content: str | bytes, *, below: Path | None = None) -> None:
    """Write a small file whole or not at all; see `writing`."""
    with writing(path, below=below) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def writing(path: Path, *, below: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file that gets its name when the block ends, and is removed if the block raises.

    Raises DiskError if a device, a pipe, a link or a directory has that name, or if a directory
    between ``below`` (the run directory) and the file is a link.
    """
    with (
        disk_errors(path),
        open_folder(path.parent, below=below) as home,
        _writing(home, path.name) as file,
    ):
        yield file


@contextmanager
def _writing(home: Folder, name: str) -> Iterator[BinaryIO]:
    aside = f"{_ASIDE}{name}-{os.getpid()}"
    home.require_regular(name)
    home.delete(aside)
    try:
        with home.open(aside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        home.require_regular(name)
        home.replace(aside, name)
    finally:
        home.delete(aside)
    home.sync()


@dataclass(frozen=True, slots=True)
class Publication:
    """A directory that is being created under a temporary name."""

    folder: Folder
    seals: dict[str, Seal] = field(default_factory=dict)
    """Seals of files that other processes have written, flushed and hashed, by name."""


@contextmanager
def publishing(path: Path, *, below: Path | None = None) -> Iterator[Publication]:
    """Create a directory whole or not at all: the block fills a temporary one, which is renamed.

    Before that it is sealed with MANIFEST.json (`convo_cli.storage.sealed`). An existing directory
    is replaced: it is first renamed, and `remove_leftovers` undoes that after a crash. ``below``:
    see `writing`.
    """
    aside = f"{_ASIDE}{path.name}-{os.getpid()}"
    replaced = f"{_ASIDE}{path.name}{_REPLACED}"
    with disk_errors(path):
        if not path.parent.exists():
            make_directory(path.parent)
        with open_folder(path.parent, below=below) as home:
            home.delete(aside)
            home.make(aside)
            try:
                with home.inside(aside) as made:
                    publication = Publication(made)
                    yield publication
                    manifest = sealed_manifest(made, publication.seals)
                    with _writing(made, MANIFEST_FILE) as file:
                        file.write(manifest)
                    if home.status(path.name) is not None:
                        home.delete(replaced)
                        home.rename(path.name, replaced)
                    try:
                        home.rename(aside, path.name)
                    except OSError:
                        if home.status(replaced) is not None:
                            home.rename(replaced, path.name)
                        raise
                    if not made.is_at(home, path.name):
                        raise DiskError(
                            f"{path}: another process created a directory there meanwhile",
                            hint=_ELSEWHERE,
                        )
            finally:
                with suppress(OSError):
                    home.delete(aside)
            home.sync()
            home.delete(replaced)


def publish_directory(
    path: Path, fill: Callable[[Path], object], *, below: Path | None = None
) -> None:
    """Create a directory of the files that ``fill`` writes into the given one; see `publishing`."""
    with publishing(path, below=below) as publication:
        fill(publication.folder.pinned)


def remove_directory(path: Path, *, below: Path | None = None) -> None:
    """Delete a published directory so that it never looks published while it is incomplete."""
    doomed = f"{_ASIDE}{path.name}-{os.getpid()}"
    with disk_errors(path), open_folder(path.parent, below=below) as home:
        home.delete(doomed)
        home.rename(path.name, doomed)
        home.sync()
        home.delete(doomed)


def set_aside(path: Path, *, below: Path | None = None) -> Path:
    """Rename a damaged directory to a name that nothing looks for, and return the new path."""
    with disk_errors(path), open_folder(path.parent, below=below) as home:
        names = (
            f"{path.name}.damaged{number}" for number in chain([""], (f"-{n}" for n in count(2)))
        )
        aside = next(name for name in names if home.status(name) is None)
        home.rename(path.name, aside)
        home.sync()
    return path.with_name(aside)


def remove_leftovers(folder: Path, *, below: Path | None = None) -> None:
    """Delete the remains of interrupted saves and removals, and undo an interrupted replacement.

    Only the holder of the run's lock may call it.
    """
    with disk_errors(folder), open_folder(folder, below=below) as home:
        for name in home.names():
            if name.startswith(_ASIDE):
                original = name.removeprefix(_ASIDE).removesuffix(_REPLACED)
                if name.endswith(_REPLACED) and home.status(original) is None:
                    home.rename(name, original)
                else:
                    home.delete(name)


def remove_leftovers_of(path: Path) -> None:
    """Delete the remains of interrupted writes of one file; only the holder of its lock may."""
    with disk_errors(path), open_folder(path.parent) as home:
        for name in home.names():
            if name.startswith(f"{_ASIDE}{path.name}-"):
                home.delete(name)


def _mebibytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk; a missing file is fine."""
    mode = "rb" if os.name == "posix" else "r+b"  # Windows flushes only files open for writing
    with (
        disk_errors(path),
        suppress(FileNotFoundError),
        open(path, mode, opener=only_regular) as file,
    ):
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk."""
    with open_folder(path) as folder:
        folder.sync()
