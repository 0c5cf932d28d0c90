"""Encoded data in the cache: checked when it is opened, because its files could be forged.

Dialogues that were encoded under another dialogue.max_length or long_turns are used again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from convo_cli.data.dialogue import Dialogue
from convo_cli.data.omissions import Omissions
from convo_cli.errors import CheckpointError
from convo_cli.prepare.cache import Cache
from convo_cli.tokens.store import Encoded, TokenStore
from convo_cli.tokens.store_check import require_valid_store

_OMISSIONS_FILE = "omissions.json"
TOKENS, REFUSED = "tokens", "refused"
"""Cache kinds: stores to train on, and the encoded part of data refused for its long turns."""


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
    folder: Path, cache: Cache, *, num_ids: int, max_length: int, num_files: int
) -> tuple[TokenStore, list[Omissions]]:
    """Open the store and the omissions; CheckpointError if encoding cannot have written them."""
    store = TokenStore.open(folder, cache.opener)
    try:
        require_valid_store(store, num_ids=num_ids, max_length=max_length, num_files=num_files)
        with open(folder / _OMISSIONS_FILE, "rb", opener=cache.opener) as file:
            omissions = msgspec.json.decode(file.read(), type=list[Omissions])
        if len(omissions) != num_files:
            raise CheckpointError(f"{_OMISSIONS_FILE} counts {len(omissions)} files")
    except (CheckpointError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(
            f"{folder}: cannot have been written by encoding ({error})"
        ) from error
    return store, omissions
