"""Encoded data in a cache folder, checked when it is opened because its files could be forged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from convo_cli.data.omissions import Omissions
from convo_cli.errors import CheckpointError
from convo_cli.prepare.cache import Cache
from convo_cli.tokens.store import TokenStore
from convo_cli.tokens.store_check import require_valid_store

_OMISSIONS_FILE = "omissions.json"


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
