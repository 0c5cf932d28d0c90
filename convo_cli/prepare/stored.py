"""Encoded data in the cache: checked when it is opened, because its files could be forged.

Dialogues that were encoded under another dialogue.max_length or long_turns are used again. An
encoding records its progress every few seconds, and continues from there after an interruption.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from convo_cli.data.dialogue import Dialogue
from convo_cli.data.omissions import Omissions
from convo_cli.data.unchanged import HashedFile, HashingFile, begins_with
from convo_cli.errors import CheckpointError
from convo_cli.events import Emit, Notice
from convo_cli.prepare.cache import Cache
from convo_cli.storage.atomic import write_file
from convo_cli.storage.folder import delete
from convo_cli.storage.sealed import Seal
from convo_cli.tokens.store import Encoded, TokenStore
from convo_cli.tokens.store_check import require_valid_store
from convo_cli.tokens.store_writer import StoreWriter
from convo_cli.wording import counted

_OMISSIONS_FILE = "omissions.json"
TOKENS, REFUSED = "tokens", "refused"
"""Cache kinds: stores to train on, and the encoded part of data refused for its long turns."""
_RECORD_FILE = "record.json"
_SECONDS_PER_RECORD = 5.0
"""Time between records, and so the most that a kill loses; a shorter encoding has no record."""


class _Record(msgspec.Struct):
    """Progress of an encoding: the seal of each column, and of the part read of each data file."""

    columns: dict[str, Seal]
    read: list[Seal]


@dataclass(frozen=True)
class EarlierStore:
    """A store of the same dialogues, with a row for each of them."""

    store: TokenStore
    max_length: int

    def find(self, number: int, dialogue: Dialogue, max_length: int) -> Encoded | None:
        """Return what encoding this dialogue under ``max_length`` would give; None if unknown.

        A dialogue that fits under both is one example under both. Windows of whole turns depend on
        max_length alone.
        """
        if number >= len(self.store.dialogues):
            return None
        row = self.store.dialogues[number]
        num_tokens = int(row["num_tokens"])
        fits = num_tokens <= min(self.max_length, max_length)
        if not num_tokens or row["is_split"] or not (fits or self.max_length == max_length):
            return None
        if row["line"] != dialogue.line:
            return None
        own = self.store.examples_between(number, number + 1)
        return Encoded([self.store[index] for index in own], num_tokens)


def find_earlier(
    cache: Cache, key: Mapping[str, Any], *, num_ids: int, num_files: int
) -> list[EarlierStore]:
    """Open the stores of this key, of any max_length and long_turns."""
    stores = list[EarlierStore]()
    for variant, store in cache.related(
        (TOKENS, REFUSED), key, partial(TokenStore.open, opener=cache.opener)
    ):
        with suppress(CheckpointError):  # a forged store is ignored like a damaged one
            max_length = int(variant["max_length"])
            require_valid_store(store, num_ids=num_ids, max_length=max_length, num_files=num_files)
            stores.append(EarlierStore(store, max_length))
    return stores


class UnfinishedStore:
    """The store that is being encoded; a context manager that closes its files.

    From the first record on, its files are in ``home``, where they survive the process.
    """

    def __init__(
        self,
        folder: Path,
        home: Path,
        cache: Cache,
        files: Sequence[HashedFile],
        check: Callable[[TokenStore], object],
        emit: Emit,
    ) -> None:
        """Create the files in ``folder``, or continue those that ``home`` has.

        Files that ``check`` refuses with a CheckpointError, and those of other data ``files``, are
        deleted.
        """
        self.opened: list[HashingFile] = []
        """The data files that are being read."""
        self.store: TokenStore | None = None
        """The first dialogues, encoded by an earlier process; None if there are none."""
        self._home = home
        writer: StoreWriter | None = None
        if os.path.lexists(home):
            try:
                writer = self._continue(cache, files, check)
            except (CheckpointError, OSError) as error:
                what = f"{home}: {error.strerror or error}" if isinstance(error, OSError) else error
                emit(Notice(f"{what}; encoding the data from the start", is_warning=True))
                self.store = None
                self.discard()
        if self.store is not None:
            encoded = counted(len(self.store.dialogues), "dialogue")
            message = f"continuing an interrupted encoding after {encoded}"
            emit(Notice(message))
        self._writer = writer or StoreWriter(folder)
        self._recorded = time.monotonic()

    def __enter__(self) -> UnfinishedStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def append(self, part: TokenStore) -> None:
        """Add encoded dialogues, and record the progress when a record is due."""
        self._writer.append(part)
        if time.monotonic() - self._recorded >= _SECONDS_PER_RECORD:
            self._record()
            self._recorded = time.monotonic()

    def finish(self, folder: Path) -> Mapping[str, Seal]:
        """Move the files to ``folder`` and close them; return their seals if any was recorded."""
        seals = {}
        if self._writer.folder == self._home:
            seals = self._writer.seal()
            self._writer.move(folder)
        self._writer.close()
        return seals

    def discard(self) -> None:
        """Delete the files in ``home``."""
        with suppress(OSError):
            delete(self._home)

    def _continue(
        self, cache: Cache, files: Sequence[HashedFile], check: Callable[[TokenStore], object]
    ) -> StoreWriter:
        cache.require_own(self._home)
        path = self._home / _RECORD_FILE
        with open(path, "rb", opener=cache.opener) as file:
            try:
                record = msgspec.json.decode(file.read(), type=_Record)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise CheckpointError(f"{path}: {error}") from error
        with ExitStack() as stack:
            writer = stack.enter_context(StoreWriter(self._home, record.columns, cache.opener))
            self.store = TokenStore.open(self._home, cache.opener)
            check(self.store)
            pairs = zip(files, record.read, strict=False)
            if not all(begins_with(file, *read) for file, read in pairs):
                raise CheckpointError(f"{self._home}: a data file changed while it was encoded")
            stack.pop_all()
        return writer

    def _record(self) -> None:
        if self._writer.folder != self._home:
            self._home.mkdir()
            self._writer.move(self._home)
        # Reading is ahead of encoding, so these bytes contain all encoded dialogues.
        record = _Record(self._writer.seal(), [file.so_far() for file in self.opened])
        write_file(self._home / _RECORD_FILE, msgspec.json.encode(record))


def find_encoded(
    earlier: Sequence[EarlierStore], number: int, dialogue: Dialogue, max_length: int
) -> Encoded | None:
    """Return the dialogue from the first store that has it; ``number`` is its place in the data."""
    return next(
        (one for store in earlier if (one := store.find(number, dialogue, max_length))), None
    )


def write_omissions(omissions: Sequence[Omissions], folder: Path) -> None:
    """Write the counts of what is not trained on next to the store, one entry for each file."""
    (folder / _OMISSIONS_FILE).write_bytes(msgspec.json.encode(omissions))


def open_stored(
    folder: Path, cache: Cache, check: Callable[[TokenStore], object], num_files: int
) -> tuple[TokenStore, list[Omissions]]:
    """Open the store and the omissions; CheckpointError if encoding cannot have written them."""
    store = TokenStore.open(folder, cache.opener)
    try:
        check(store)
        with open(folder / _OMISSIONS_FILE, "rb", opener=cache.opener) as file:
            omissions = msgspec.json.decode(file.read(), type=list[Omissions])
        if len(omissions) != num_files:
            raise CheckpointError(f"{_OMISSIONS_FILE} counts {len(omissions)} files")
    except (CheckpointError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(
            f"{folder}: cannot have been written by encoding ({error})"
        ) from error
    return store, omissions
