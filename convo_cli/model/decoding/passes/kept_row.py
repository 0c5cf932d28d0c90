"""The row of the last reply, whose first tokens are often the beginning of the next prompt.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from convo_cli.model.decoding.passes.forward import Ids, Rows
from convo_cli.model.decoding.passes.forward_choice import ProvenForward

if TYPE_CHECKING:
    from convo_cli.model.decoding.queries import Query


class KeptRow:
    """A row that the model has read, and its ids.

    After an interrupt at any place, the first tokens of the row are still ``_ids``: ids are removed
    before the row is cut, and added after it has grown. `Rows.cut` removes what an interrupted pass
    has left.
    """

    def __init__(self, forward: ProvenForward) -> None:
        self._forward = forward
        self._rows: Rows | None = None
        self._ids: list[int] = []
        self._is_kept = True
        self.num_reused = 0
        """First tokens of the last prompt that had been read before."""

    def begin(self, queries: Sequence[Query], room: int) -> tuple[Rows, Tensor]:
        """Read one prompt; return its row, and the logits of its next token, (1, V).

        Tokens that the row shares with it are not read again, if `ProvenForward.can_extend`. The
        proof runs when it is needed first, for the second reply.
        """
        (prompt,) = (query.ids for query in queries)
        self.num_reused = num_shared(self._ids, prompt[:-1])  # the logits need one token at least
        if self._rows is not None and self.num_reused:
            if self._forward.can_extend:
                del self._ids[self.num_reused :]
                self._rows.cut(self.num_reused)
                logits = self._rows.extend(prompt[self.num_reused :])
                self._ids = list(prompt)
                return self._rows, logits
            self._is_kept, self.num_reused = False, 0
        self._rows, self._ids = None, []  # frees the memory first
        # Later turns go into free slots; memory that is not written to costs nothing.
        rows, logits = self._forward.passes.start([prompt], room + len(prompt) // 2)
        if self._is_kept:
            self._rows, self._ids = rows, list(prompt)
        return rows, logits

    def append(self, tokens: Ids) -> None:
        """Add tokens of the reply, which the row has read."""
        self._ids += tokens


def num_shared(one: Ids, other: Ids) -> int:
    """Return the number of first ids that are equal."""
    shared = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        shared += 1
    return shared
