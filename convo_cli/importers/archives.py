"""Members of a zip archive as bounded streams; nothing is extracted.

An archive is refused if its directory is too large, or if any of its members overlaps another one.
A member is refused if it is encrypted or a link, if its name leads out of the archive, or if it
unpacks to too much.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from convo_cli.errors import DataError, first_line
from convo_cli.wording import quoted

MAX_MEMBERS = 100_000
MAX_RATIO = 200
"""Largest ratio of unpacked to packed bytes; chats and JSON have at most about 20."""
MAX_UNPACKED_BYTES = 2**36
"""Unpacked bytes that are read from one source, 64 GiB."""
_FREE_BYTES = 2**24
"""Unpacked bytes before the ratio counts, 16 MiB: short texts may repeat themselves."""
_MAX_DIRECTORY_BYTES = 2**23
_AT_MOST = _MAX_DIRECTORY_BYTES + 1
_HEADER_BYTES = 30
_BUFFER_BYTES = 2**18
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Other methods can claim gigabytes of memory for a few bytes."""
_WAY_OUT = "unpack it yourself, check its contents, and import the file with the messages"
DAMAGED_ZIP = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(NotImplementedError, RuntimeError, ValueError, OverflowError),
)


class Budget:
    """The unpacked bytes that may still be read from a source."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.num_bytes = 0

    def spend(self, num_bytes: int) -> None:
        self.num_bytes += num_bytes
        if self.num_bytes > MAX_UNPACKED_BYTES:
            raise bomb(self.where, f"it unpacks to more than {MAX_UNPACKED_BYTES // 2**30} GiB")


class Bounded(io.RawIOBase):
    """A stream of unpacked bytes that raises `DataError` if there are too many."""

    def __init__(self, stream: Any, packed_bytes: int, budget: Budget) -> None:
        self._stream = stream
        self._limit = max(_FREE_BYTES, MAX_RATIO * packed_bytes)
        self._budget = budget
        self._num_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(min(len(buffer), _BUFFER_BYTES))
        except DAMAGED_ZIP as error:
            raise damaged(self._budget.where, error) from None
        buffer[: len(data)] = data
        self._num_bytes += len(data)
        self._budget.spend(len(data))
        if self._num_bytes > self._limit:
            where = self._budget.where
            raise bomb(where, f"a part of it unpacks to more than {MAX_RATIO} times its size")
        return len(data)


class Archive:
    """The regular members of a zip archive by name, in alphabetical order."""

    def __init__(self, file: BinaryIO, where: str, budget: Budget) -> None:
        self._where = where
        self._budget = budget
        self._file = file
        try:
            self.members = self._read_directory()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_directory(self) -> dict[str, zipfile.ZipInfo]:
        try:
            limited = _DirectoryLimit(self._file, self._where)
            self._zip = zipfile.ZipFile(cast(BinaryIO, limited))
        except DAMAGED_ZIP:
            raise DataError(
                f"{self._where}: the zip archive is damaged",
                hint="copy, download or export it again",
            ) from None
        return self._checked()

    @contextmanager
    def open(self, name: str) -> Iterator[io.BufferedReader]:
        """Open a member; DataError if it is damaged or unpacks to too much."""
        info = self.members[name]
        try:
            stream = self._zip.open(info)
        except DAMAGED_ZIP as error:
            raise damaged(self._where, error) from None
        with stream:
            bounded = Bounded(stream, info.compress_size, self._budget)
            yield io.BufferedReader(bounded, _BUFFER_BYTES)

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        infos = self._zip.infolist()
        if len(infos) > MAX_MEMBERS:
            raise bomb(self._where, f"it has more than {MAX_MEMBERS:,} members")
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset < end:
                raise bomb(self._where, "its members overlap")
            end = info.header_offset + _HEADER_BYTES + info.compress_size
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            if not info.filename or info.is_dir():
                continue
            self._require_plain(info)
            if info.filename in members:
                raise bomb(self._where, f"it has two members named {quoted(info.filename)}")
            members[info.filename] = info
        return dict(sorted(members.items()))

    def _require_plain(self, info: zipfile.ZipInfo) -> None:
        path = PurePosixPath(info.filename.replace("\\", "/"))
        mode = info.external_attr >> 16
        reason = ""
        if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]):
            reason = "its path leads out of the archive"
        elif stat.S_ISLNK(mode):
            reason = "it is a link"
        elif info.flag_bits & _ENCRYPTED:
            reason = "it is encrypted"
        elif info.compress_type not in _METHODS:
            reason = "it is not compressed with deflate"
        if reason:
            raise DataError(
                f"{self._where}: refused member {quoted(info.filename)}: {reason}", hint=_WAY_OUT
            )


class _DirectoryLimit:
    """A file of which at most `_MAX_DIRECTORY_BYTES` are read at once.

    zipfile reads the directory of an archive with one call, before its members can be counted.
    """

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file = file
        self._where = where

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(min(size, _AT_MOST) if size >= 0 else _AT_MOST)
        if len(data) > _MAX_DIRECTORY_BYTES:
            raise bomb(self._where, f"its directory has more than {_MAX_DIRECTORY_BYTES:,} bytes")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def damaged(where: str, error: Exception) -> DataError:
    """Return the refusal of packed data that cannot be unpacked."""
    return DataError(
        f"{where}: it cannot be unpacked: {first_line(error)}",
        hint="copy, download or export it again",
    )


def bomb(where: str, reason: str) -> DataError:
    """Return the refusal of an archive that is too large or too unusual for an export."""
    return DataError(f"{where}: refused: {reason}", hint=_WAY_OUT)
