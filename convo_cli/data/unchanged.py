"""Reader of dialogues from hashed files; it hashes them again and refuses a changed file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from convo_cli.config.schema import DataConfig
from convo_cli.data.decompress import BUFFER_BYTES
from convo_cli.data.dialogue import Dialogue
from convo_cli.data.omissions import Omissions
from convo_cli.data.reader import read_dialogues
from convo_cli.errors import DataError, FileChangedError, UsageError


class HashedFile(Protocol):
    """A file and its earlier hash."""

    @property
    def path(self) -> str: ...
    @property
    def sha256(self) -> str: ...


@contextmanager
def read_unchanged(
    files: Iterable[HashedFile],
    data_config: DataConfig,
    omissions: Sequence[Omissions] | None = None,
    opened: list[HashingFile] | None = None,
) -> Iterator[Iterator[Dialogue]]:
    """Read the dialogues of the files; raise `FileChangedError` after the block if one changed.

    ``omissions`` are those of `read_dialogues`. Each file is added to ``opened`` when its reading
    begins, and is hashed to its end even if the block stops before. The `FileChangedError`
    replaces a `DataError` or `UsageError` of the block, which may come from a half-written file.
    """
    files = tuple(files)
    opened = [] if opened is None else opened

    def open_raw(path: str) -> HashingFile:
        opened.append(HashingFile(path))
        return opened[-1]

    dialogues = read_dialogues([file.path for file in files], data_config, omissions, open_raw)
    try:
        yield dialogues
    except (DataError, UsageError):
        _require_unchanged(files, opened)
        raise
    else:
        _require_unchanged(files, opened)
    finally:
        dialogues.close()
        for raw in opened:
            raw.close()


class HashingFile(io.FileIO):
    """A file that hashes its bytes while they are read."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._digest = hashlib.sha256()
        self._num_bytes = 0
        self._is_at_end = False

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer) or 0
        self._digest.update(memoryview(buffer)[:size])
        self._num_bytes += size
        self._is_at_end = size == 0
        return size

    def so_far(self) -> tuple[int, str]:
        """Return the number of bytes read so far, and their SHA-256."""
        return self._num_bytes, self._digest.hexdigest()

    def sha256(self) -> str:
        """Return the SHA-256 of the whole file, after reading the rest of it."""
        block = bytearray(BUFFER_BYTES)
        while not self._is_at_end:
            self.readinto(block)
        return self._digest.hexdigest()


def begins_with(file: HashedFile, num_bytes: int, sha256: str) -> bool:
    """Return whether a file still has its hash, and its first ``num_bytes`` have ``sha256``."""
    if sha256 == file.sha256:
        return True
    with HashingFile(file.path) as raw:
        left, block = num_bytes, memoryview(bytearray(BUFFER_BYTES))
        while left and (size := raw.readinto(block[:left])):
            left -= size
        return raw.so_far() == (num_bytes, sha256) and raw.sha256() == file.sha256


def _require_unchanged(files: Iterable[HashedFile], opened: Iterable[HashingFile]) -> None:
    """Raise `FileChangedError` for the first changed file; ``opened`` are the first ``files``."""
    for file, raw in zip(files, opened, strict=False):
        try:
            read = raw.sha256()
        except OSError as error:
            raise UsageError(f"{file.path} cannot be read: {error.strerror}") from error
        if read != file.sha256:
            hashes = f"SHA-256 {file.sha256} before, now {read}"
            raise FileChangedError(
                f"{file.path} changed while it was read ({hashes})",
                hint="wait until nothing writes to the file, or use a copy of it",
            )
