"""Columns of a token store in files, which are read in parts.

Files are not mapped, because a read from a truncated mapped file ends the process with SIGBUS.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from convo_cli.errors import CheckpointError

Opener: TypeAlias = Callable[[str, int], int]
"""Opens a path with flags, like `os.open`."""

_READS_PER_CHECK = 32
"""Reads per check for writes in place; a check costs as much as a read.

Every read notices a truncated file.
"""
_BLOCK = 1 << 13  # rows read at once


class FileColumn:
    """Numbers or records in a file; CheckpointError if the file changed since it was opened.

    An index reads one row, a slice some rows, and a name that field of all records. A change that
    resets the time of the last change is not noticed.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], opener: Opener = os.open) -> None:
        self._path, self._dtype = path, dtype
        self._file = opener(str(path), os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._state = self._read_state()
        self._num_reads = 0
        self._length, rest = divmod(self._state[0], dtype.itemsize)
        if rest:
            size = f"{self._state[0]:,} bytes"
            raise self._error(f"the size is not a multiple of {dtype.itemsize} bytes ({size})")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice | int | str) -> Any:
        if isinstance(part, str):
            return self._read_field(part)
        if not isinstance(part, slice):
            begin = range(self._length)[part]  # or IndexError
            return self._read(begin, begin + 1)[0]
        begin, end, _ = part.indices(self._length)
        return self._read(begin, end)

    def _read_field(self, name: str) -> NDArray[Any]:
        field = np.empty(self._length, self._dtype[name])
        for begin, block in blocks_of(self):
            field[begin : begin + len(block)] = block[name]
        return field

    def _read(self, begin: int, end: int) -> NDArray[Any]:
        size = (end - begin) * self._dtype.itemsize
        self._num_reads += 1
        try:
            data = os.pread(self._file, size, begin * self._dtype.itemsize)
            if len(data) != size or (
                self._num_reads % _READS_PER_CHECK == 0 and self._read_state() != self._state
            ):
                sizes = f"{self._state[0]:,} bytes before, now {self._read_state()[0]:,}"
                raise self._error(f"the file changed while it was in use ({sizes})")
        except OSError as error:
            raise self._error(f"the file cannot be read ({error.strerror})") from error
        return np.frombuffer(data, self._dtype)

    def _read_state(self) -> tuple[int, int]:
        status = os.fstat(self._file)
        return status.st_size, status.st_mtime_ns

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self._path}: {what}",
            hint="start again, or `convo resume RUN_DIR` if the run has begun; the file is then "
            "checked and created again",
        )


Column: TypeAlias = NDArray[Any] | FileColumn


def blocks_of(column: Column) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield a column in blocks, each with the number of rows before it."""
    for begin in range(0, len(column), _BLOCK):
        yield begin, column[begin : begin + _BLOCK]


def read_compact(column: Column) -> NDArray[np.int32]:
    """Read a column as 32-bit numbers; numbers beyond their limits become the limits."""
    numbers, limits = np.empty(len(column), np.int32), np.iinfo(np.int32)
    for begin, block in blocks_of(column):
        numbers[begin : begin + len(block)] = np.clip(block, limits.min, limits.max)
    return numbers


def read_lengths(offsets: Column, num_tokens: int) -> NDArray[np.int32]:
    """Return the differences of offsets; CheckpointError if they do not ascend to the end."""
    lengths = np.empty(max(0, len(offsets) - 1), np.int32)
    last, largest = 0, np.iinfo(np.int32).max
    is_valid = bool(len(offsets)) and offsets[0] == 0
    for begin, block in blocks_of(offsets):
        sizes = np.diff(block, prepend=last if begin else -1)  # offset 0 passes as a size of 1
        is_valid = is_valid and bool((sizes > 0).all()) and int(sizes.max()) <= largest
        if not is_valid:
            break
        lengths[max(0, begin - 1) : begin - 1 + len(block)] = sizes[0 if begin else 1 :]
        last = int(block[-1])
    if not is_valid or last != num_tokens:
        raise CheckpointError("offsets: do not ascend from 0 to the number of tokens")
    return lengths
