"""Data files of a run: paths, hashes and numbers of lines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from convo_cli.config.schema import DATA_SETS, DataConfig
from convo_cli.errors import FileChangedError, UsageError
from convo_cli.events import Emit, Notice, Progress, ignore

_ATTEMPTS = 3
_BLOCK_BYTES = 2**20
_COMPRESSED = (".gz", ".zst")
T = TypeVar("T")


class DataFile(BaseModel):
    """A data file as it was when the run began."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    sha256: str
    num_lines: int
    """Lines of a plain file; 0 for a compressed one."""


class DataFiles(NamedTuple):
    """The data files of a run as they are on the disk."""

    train: tuple[DataFile, ...]
    validation: tuple[DataFile, ...]
    test: tuple[DataFile, ...] = ()


def read_data_files(data: DataConfig, emit: Emit = ignore) -> DataFiles:
    """Hash every data file; UsageError if one cannot be read."""
    paths = {name: [Path(path) for path in getattr(data, name)] for name in DATA_SETS}
    total = sum(file.stat().st_size for file in chain(*paths.values()) if file.is_file())
    done = 0

    def count(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        emit(Progress("hashing the data files", min(done, total), total, "bytes"))

    count(0)
    return DataFiles(
        **{name: tuple(_data_file(path, count) for path in paths[name]) for name in DATA_SETS}
    )


def with_hashed_data(data: DataConfig, use: Callable[[DataFiles], T], emit: Emit) -> T:
    """Hash every data file and call ``use``; do both again if a file changed in between.

    ``use`` reads the files with `convo_cli.data.unchanged.read_unchanged`, so that its result comes
    from the bytes that were hashed. FileChangedError if a file changes in each of three attempts.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return use(read_data_files(data, emit))
        except FileChangedError as error:
            emit(Notice(f"{error.message}; hashing and reading the data again", is_warning=True))
    return use(read_data_files(data, emit))


def _data_file(path: Path, count: Callable[[int], None]) -> DataFile:
    digest = hashlib.sha256()
    num_lines, last = 0, b"\n"
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                num_lines += block.count(b"\n")
                last = block[-1:]
                count(len(block))
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}", hint="put the file back, or give its new path"
        ) from error
    is_compressed = path.suffix.lower() in _COMPRESSED
    return DataFile(
        path=str(path),
        sha256=digest.hexdigest(),
        num_lines=0 if is_compressed else num_lines + (last != b"\n"),
    )
