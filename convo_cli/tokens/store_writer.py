"""Writer of a token store: small stores are appended to its files, so that only one is in memory.

A seal records what was written so far; another writer of the same files can continue after it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from convo_cli.errors import CheckpointError
from convo_cli.storage.sealed import Seal
from convo_cli.tokens.store import COLUMNS, TokenStore
from convo_cli.tokens.store_columns import Opener

_BLOCK_BYTES = 1 << 20


def write(parts: Iterable[TokenStore], folder: Path) -> None:
    """Write small stores one after the other as one store."""
    with StoreWriter(folder) as writer:
        for part in parts:
            writer.append(part)


class StoreWriter:
    """The open files of a store; a context manager that closes them."""

    def __init__(
        self, folder: Path, sealed: Mapping[str, Seal] | None = None, opener: Opener = os.open
    ) -> None:
        """Create the files, or open those of ``sealed`` and cut off all later bytes.

        CheckpointError if a file does not begin with the sealed bytes.
        """
        self.folder = folder
        with ExitStack() as stack:
            self._files = dict[str, _File]()
            for name in COLUMNS:
                seal = None if sealed is None else sealed.get(name, (0, ""))
                self._files[name] = _File(folder / name, seal, opener)
                stack.callback(self._files[name].close)
            self._stack = stack.pop_all()
        if sealed is None:
            self._files["offsets"].write(np.zeros(1, np.int64).tobytes())
        self._num_tokens = self._files["targets"].size
        self._num_dialogues = self._files["dialogues"].size // COLUMNS["dialogues"].itemsize

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, part: TokenStore) -> None:
        """Add the dialogues and examples of a small store after those that were written."""
        files = self._files
        files["input_ids"].write(part.input_ids[:].tobytes())
        files["targets"].write(part.targets[:].tobytes())
        files["offsets"].write((part.offsets[1:] + self._num_tokens).tobytes())
        dialogue_of = part.dialogue_of.astype(np.int64) + self._num_dialogues
        files["dialogue_of"].write(dialogue_of.tobytes())
        files["dialogues"].write(part.dialogues[:].tobytes())
        self._num_tokens += part.num_tokens
        self._num_dialogues += len(part.dialogues)

    def seal(self) -> dict[str, Seal]:
        """Flush all files to disk, and return the seal of each."""
        return {name: file.seal() for name, file in self._files.items()}

    def move(self, folder: Path) -> None:
        """Move the files, which stay open, to another folder of the same file system."""
        for name in COLUMNS:
            os.rename(self.folder / name, folder / name)
        self.folder = folder

    def close(self) -> None:
        self._stack.close()


class _File:
    """A file that grows, and the hash of its content."""

    def __init__(self, path: Path, sealed: Seal | None = None, opener: Opener = os.open) -> None:
        self.size = 0
        self._digest = hashlib.sha256()
        if sealed is None:
            self._file: BinaryIO = path.open("w+b")
            return
        self._file = cast(BinaryIO, open(path, "r+b", opener=opener))  # noqa: SIM115  # see close
        try:
            while block := self._file.read(max(0, min(_BLOCK_BYTES, sealed[0] - self.size))):
                self._count(block)
            if (self.size, self._digest.hexdigest()) != sealed:
                raise CheckpointError(f"{path}: damaged (its content is not what was saved)")
            self._file.truncate(self.size)
            self._file.seek(self.size)
        except BaseException:
            self._file.close()
            raise

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._count(data)

    def seal(self) -> Seal:
        self._file.flush()
        os.fsync(self._file.fileno())
        return self.size, self._digest.hexdigest()

    def close(self) -> None:
        self._file.close()

    def _count(self, data: bytes) -> None:
        self._digest.update(data)
        self.size += len(data)
