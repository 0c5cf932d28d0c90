"""Snapshots of files, which prove that the files that were verified are those that were loaded.

A snapshot detects files that were replaced, written, added or removed meanwhile, even if the
modification time was reset.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from convo_cli.errors import ChangedError

_ENDINGS = {
    ".json", ".safetensors", ".model", ".txt", ".jinja", "", ".gguf", ".bin", ".onnx", ".data",
}  # fmt: skip
"""Suffixes of files from which models, tokenizers and caches are read; a log that grows next to
them is ignored.
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a file, or of the files in a folder, from which something is loaded."""

    path: Path
    stamps: Mapping[Path, tuple[int, ...]]
    """Device, inode, size, and times of the last change of content and of status; for a link, also
    its target's.
    """

    @classmethod
    def of(cls, path: Path) -> Snapshot:
        return cls(path, dict(_stamps(path)))

    def require_unchanged(self) -> None:
        """Raise ChangedError that names the first file that differs now."""
        now = dict(_stamps(self.path))
        for file in sorted(self.stamps.keys() | now.keys()):
            if self.stamps.get(file) != now.get(file):
                what = "changed" if file in now else "removed"
                if file not in self.stamps:
                    what = "added"
                read = "it" if file == self.path else self.path
                raise ChangedError(
                    f"{file}: {what} while {read} was read",
                    hint="wait until nothing writes there, then start again",
                )


def _stamps(path: Path) -> Iterator[tuple[Path, tuple[int, ...]]]:
    with suppress(OSError):  # removed meanwhile: the comparison finds missing files
        for file in path.iterdir() if path.is_dir() else [path]:
            if file.is_file() and (file == path or file.suffix in _ENDINGS):
                target = _stamp(file.stat()) if file.is_symlink() else ()
                yield file, (*_stamp(file.lstat()), *target)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
