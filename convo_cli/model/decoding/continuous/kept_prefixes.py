"""Rows of earlier requests that later requests with the same key continue.

A row is found only by its key. So neither the reply nor its timing reveals requests with another
key.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from convo_cli.model.decoding.passes.forward import Rows
from convo_cli.model.decoding.passes.kept_row import num_shared

MAX_PREFIXES = 16
MAX_BYTES = 256 * 2**20


@dataclass(frozen=True)
class _Kept:
    ids: Sequence[int]
    rows: Rows
    num_bytes: int


class KeptPrefixes:
    """One row for each key; the row that was used least recently is freed first."""

    def __init__(self, max_rows: int = MAX_PREFIXES, max_bytes: int = MAX_BYTES) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, key: str, ids: Sequence[int], rows: Rows) -> None:
        """Keep a row that has read at least these ids, instead of the key's earlier one."""
        self._pop(key)
        num_bytes = rows.num_bytes
        if num_bytes > self._max_bytes:
            return
        self._kept[key] = _Kept(ids, rows, num_bytes)
        self.num_bytes += num_bytes
        while len(self._kept) > self._max_rows or self.num_bytes > self._max_bytes:
            self._pop(next(iter(self._kept)))

    def take(self, key: str, ids: Sequence[int]) -> tuple[Rows, int] | None:
        """Remove the row of a key; return it, cut to the first ids that are equal, and its length.

        None if there is no row, or if its first id differs. The row never holds the last of the
        ids, because the logits after it are needed.
        """
        kept = self._pop(key)
        if kept is None:
            return None
        length = num_shared(kept.ids, ids[:-1])
        if not length:
            return None
        kept.rows.cut(length)
        return kept.rows, length

    def clear(self) -> None:
        """Free all rows."""
        self._kept.clear()
        self.num_bytes = 0

    def _pop(self, key: str) -> _Kept | None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.num_bytes -= kept.num_bytes
        return kept
