"""The interface of forward passes for generation: rows of tokens that grow one token at a time.

Shapes: B rows, T tokens of one dialogue, N positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from torch import Tensor

Ids: TypeAlias = Sequence[int]


class Rows(Protocol):
    """A batch of rows that the model has read."""

    def step(self, tokens: Ids) -> Tensor:
        """Append a token to each row and return the logits of the next one, (B, V)."""

    def keep(self, places: Sequence[int]) -> None:
        """Keep only the rows at these places, in this order."""


class Pass(Protocol):
    """A whole dialogue that the model has read in one forward pass."""

    def logits(self, positions: Ids) -> Tensor:
        """Return the logits (N, V) of the token after each of these requested positions."""


class Forward(Protocol):
    """The forward passes of one model with its current weights."""

    def start(self, prompts: Sequence[Ids], room: int) -> tuple[Rows, Tensor]:
        """Read the prompts; return them as rows, and the logits of their next tokens, (B, V).

        ``room`` is the most tokens by which a row will grow.
        """

    def read(self, ids: Ids, positions: Ids) -> Pass:
        """Read a dialogue; ``positions`` are those whose logits will be requested."""

    def branch(self, parts: Sequence[tuple[Pass, int]], room: int) -> Rows:
        """Return rows that continue after the first tokens of dialogues already read.

        Each part is a pass and the number of these tokens; ``room`` is that of `start`.
        """
