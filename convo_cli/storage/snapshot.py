"""A record of files before they are hashed or loaded, compared afterwards: what was verified is what was loaded.

It shows a file that was replaced, written to, added or removed in between, even if its modification time was set back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from convo_cli.errors import ChangedError

_ENDINGS = {".json", ".safetensors", ".model", ".txt", ".jinja", ""}
"""Of files that models, tokenizers and caches are read from; a log that grows beside them changes nothing."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A file, or the files of a folder that something is loaded from."""

    path: Path
    stamps: Mapping[Path, tuple[int, ...]]
    """Device, inode, size, and times of the last change of content and of status; for a link, also its target's."""

    @classmethod
    def of(cls, path: Path) -> Snapshot:
        return cls(path, dict(_stamps(path)))

    def require_unchanged(self) -> None:
        """Raise ChangedError naming the first file that is another one now."""
        now = dict(_stamps(self.path))
        for file in sorted(self.stamps.keys() | now.keys()):
            if self.stamps.get(file) != now.get(file):
                what = "removed" if file not in now else "added" if file not in self.stamps else "changed"
                raise ChangedError(
                    f"{file}: {what} while {'it' if file == self.path else self.path} was read",
                    hint="wait until nothing writes there, then start again",
                )


def _stamps(path: Path) -> Iterator[tuple[Path, tuple[int, ...]]]:
    with suppress(OSError):  # removed at this moment: the comparison finds what is missing
        for file in path.iterdir() if path.is_dir() else [path]:
            if file.is_file() and (file == path or file.suffix in _ENDINGS):
                yield file, (*_stamp(file.lstat()), *(_stamp(file.stat()) if file.is_symlink() else ()))


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
