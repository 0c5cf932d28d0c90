"""The interface of forward passes for generation: rows of tokens that grow.

Shapes: B rows, T tokens of one dialogue, N positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from torch import Tensor

Ids: TypeAlias = Sequence[int]


class Rows(Protocol):
    """A batch of rows that the model has read.

    Rows have different numbers of tokens. The batch may grow beyond the ``room`` of its start.
    Methods for one row raise ValueError if the batch has several. A model whose cache cannot do
    what a method needs raises TypeError; `ProvenForward` says which methods are correct.
    """

    @property
    def num_tokens(self) -> list[int]:
        """Return the number of tokens of each row."""

    @property
    def num_bytes(self) -> int:
        """Return the memory in bytes that the keys and values of the batch occupy."""

    def step(self, tokens: Ids) -> Tensor:
        """Append a token to each row and return the logits of the next one, (B, V)."""

    def extend(self, ids: Ids) -> Tensor:
        """Append at least one token to the only row; return the logits of the next one, (1, V)."""

    def cut(self, length: int) -> None:
        """Keep only the first ``length`` tokens of the only row, which may be 0.

        This also restores a row whose `step` or `extend` was interrupted by an exception: at most
        the tokens that it had before may be kept.
        """

    def keep(self, places: Sequence[int]) -> None:
        """Keep only the rows at these places, in this order.

        At least one row is kept, and none moves to a later place.
        """

    def take(self, place: int) -> Any:
        """Return a copy of one row, as a batch of the same type; this batch does not change."""

    def join(self, other: Any) -> None:
        """Append the rows of another batch of the same forward, which must not be used afterwards.

        All rows are padded on the left to the length of the longest one, and to no more.
        """


class Pass(Protocol):
    """A whole dialogue that the model has read in one forward pass."""

    def logits(self, positions: Ids) -> Tensor:
        """Return the logits (N, V) of the token after each of these requested positions."""


class Forward(Protocol):
    """The forward passes of one model with its current weights."""

    def start(self, prompts: Sequence[Ids], room: int) -> tuple[Rows, Tensor]:
        """Read the prompts; return them as rows, and the logits of their next tokens, (B, V).

        ``room`` is the number of tokens by which a row will probably grow.
        """

    def read(self, ids: Ids, positions: Ids) -> Pass:
        """Read a dialogue; ``positions`` are those whose logits will be requested."""

    def branch(self, parts: Sequence[tuple[Pass, int]], room: int) -> Rows:
        """Return rows that continue after the first tokens of dialogues already read.

        Each part is a pass and the number of these tokens; ``room`` is that of `start`.
        """
