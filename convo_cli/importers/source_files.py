"""Files of a source: one file, the members of a zip archive, or the files of a folder.

A reader sees only names and streams of unpacked bytes. The streams are bounded, and they report the
progress of the import.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from convo_cli.data.decompress import DAMAGED, open_unpacked
from convo_cli.errors import DataError, UsageError, typeable
from convo_cli.events import Emit, Progress, ignore
from convo_cli.importers.archives import MAX_MEMBERS, Archive, Bounded, Budget
from convo_cli.wording import on_one_line

HEAD_BYTES = 2**16
"""Beginning of a file that decides what it is."""
_ZIP_START = b"PK\x03\x04"
_EMPTY_ZIP_START = b"PK\x05\x06"
_BUFFER_BYTES = 2**18
_PROGRESS_BYTES = 2**20
_MAX_DEPTH = 6


class Given(NamedTuple):
    """What the user says about a source."""

    assistants: tuple[str, ...] = ()
    columns: Mapping[str, str] = {}
    """Columns of a table, each with the name that convo reads."""
    only: str = ""
    """Pattern, or part, of the names of the files to read. Empty: all files."""


class Source:
    """The files of a source by name; the only name of a plain file is its own."""

    def __init__(self, path: Path, emit: Emit = ignore, given: Given | None = None) -> None:
        self.path = path
        self.given = given or Given()
        self.where = str(path)
        self._budget = Budget(self.where)
        self._heads: dict[str, bytes] = {}
        self._emit = emit
        self._archive: Archive | None = None
        self._num_reported = 0
        if path.is_dir():
            self._files = dict(sorted(_files_below(path)))
            return
        self._files = {path.name: path}
        try:
            with path.open("rb") as file:
                start = file.read(len(_ZIP_START))
        except OSError as error:
            raise _unreadable(path, error) from None
        if start in (_ZIP_START, _EMPTY_ZIP_START):
            self._archive = Archive(path.open("rb"), self.where, self._budget)

    def close(self) -> None:
        """Close the archive, if the source is one."""
        if self._archive is not None:
            self._archive.close()

    @property
    def names(self) -> Sequence[str]:
        """The names of the files to read, with / between folders, in alphabetical order."""
        names = self._files if self._archive is None else self._archive.members
        only = self.given.only
        pattern = only if any(sign in only for sign in "*?[") else f"*{only}*"
        return [name for name in names if fnmatchcase(name, pattern)]

    @property
    def is_single(self) -> bool:
        """Whether this is one file, neither an archive nor a folder."""
        return self._archive is None and not self.path.is_dir()

    def head(self, name: str) -> bytes:
        """Return the first `HEAD_BYTES` of a file."""
        if name not in self._heads:
            with self.open(name) as stream:
                self._heads[name] = stream.read(HEAD_BYTES)
        return self._heads[name]

    def head_text(self, name: str) -> str:
        """Return the beginning of a file as text, with a question mark for what is no text."""
        head = self.head(name)
        return head.decode(encoding_of(head), "replace").removeprefix("\ufeff")

    @contextmanager
    def open(self, name: str) -> Iterator[io.BufferedReader]:
        """Open a file; .gz and .zst are unpacked."""
        if self._archive is not None:
            with self._archive.open(name) as stream:
                yield self._reporting(stream)
            return
        path = self._files[name]
        packed_bytes = path.stat().st_size
        try:
            with open_unpacked(str(path)) as (packed, text):
                is_packed = text is not packed
                bounded = Bounded(text, packed_bytes, self._budget) if is_packed else text
                yield self._reporting(bounded)
        except DAMAGED as error:
            raise DataError(
                f"{path}: the compressed data cannot be unpacked ({error})",
                hint="copy or download it again",
            ) from None
        except OSError as error:
            raise _unreadable(path, error) from None

    @contextmanager
    def open_text(self, name: str) -> Iterator[io.TextIOWrapper]:
        """Open a text file in UTF-8 or UTF-16; DataError if it is neither."""
        encoding = encoding_of(self.head(name))
        with self.open(name) as stream:
            text = io.TextIOWrapper(stream, encoding=encoding, newline="\n")
            try:
                yield text
            except UnicodeError:
                raise DataError(
                    f"{self.shown(name)}: the text is not {encoding.upper().replace('-SIG', '')}",
                    hint="convert it: iconv -f WINDOWS-1252 -t UTF-8 chat.txt > utf8.txt (or the "
                    "encoding that it has)",
                ) from None

    @contextmanager
    def open_whole(self, name: str) -> Iterator[BinaryIO]:
        """Open a file that is read in any order; what is packed is unpacked to a temporary file."""
        path = self._files.get(name) if self._archive is None else None
        if path is not None and path.suffix.lower() not in (".gz", ".zst"):
            with path.open("rb") as file:
                yield file
            return
        with tempfile.TemporaryFile() as copy:
            with self.open(name) as stream:
                shutil.copyfileobj(stream, copy, _BUFFER_BYTES)
            copy.seek(0)
            yield cast(BinaryIO, copy)

    def shown(self, name: str) -> str:
        """Return the name of a file for messages."""
        return self.where if self.is_single else f"{self.where}: {on_one_line(name)}"

    def _reporting(self, stream: Any) -> io.BufferedReader:
        return io.BufferedReader(cast(Any, _Reporting(stream, self._read)), _BUFFER_BYTES)

    def _read(self, num_bytes: int) -> None:
        before = self._num_reported // _PROGRESS_BYTES
        self._num_reported += num_bytes
        if self._num_reported // _PROGRESS_BYTES > before:
            self._emit(Progress(f"reading {self.where}", self._num_reported, None, "bytes"))


class _Reporting(io.RawIOBase):
    def __init__(self, stream: Any, read: Any) -> None:
        self._stream = stream
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._read(len(data))
        return len(data)


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{path} cannot be read: {error.strerror or error}",
        hint=f"`ls -ld {typeable(path)}` shows who may read it",
    )


def encoding_of(head: bytes) -> str:
    """Return the encoding of a text by its byte order mark or the zero bytes of ASCII."""
    if head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return "utf-16"
    if head.startswith(BOM_UTF8):
        return "utf-8-sig"
    is_zero = tuple(byte == 0 for byte in head[:4])
    if is_zero == (False, True, False, True):
        return "utf-16-le"
    return "utf-16-be" if is_zero == (True, False, True, False) else "utf-8"


def _files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and path of the regular files in a folder; no link is followed."""
    places: list[tuple[str, Path]] = [("", folder)]
    num_files = 0
    while places:
        prefix, place = places.pop()
        try:
            entries = os.scandir(place)
        except OSError as error:
            raise _unreadable(place, error) from None
        with entries:
            for entry in entries:
                name = f"{prefix}{entry.name}"
                if entry.is_dir(follow_symlinks=False) and name.count("/") < _MAX_DEPTH:
                    places.append((f"{name}/", Path(entry.path)))
                elif entry.is_file(follow_symlinks=False):
                    num_files += 1
                    if num_files > MAX_MEMBERS:
                        raise UsageError(
                            f"{folder}: more than {MAX_MEMBERS:,} files",
                            hint="give only the folder of the export",
                        )
                    yield name, Path(entry.path)
