"""A rendered dialogue as pieces and their ids, and the interface of templates.

Shapes: T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, takewhile
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from convo_cli.config.schema import TemplateName
from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_TURN = -1
"""The turn index of pieces before the first turn: they start every window."""


class Piece(NamedTuple):
    """A stretch of the rendered dialogue. ``is_learnable`` marks its speaker's words: the text and its end token.

    (A tuple, because there are three for every turn of the data, and tuples are made three times as fast.)
    """

    text: str
    turn: int
    is_special: bool = False
    is_learnable: bool = False


@dataclass(frozen=True)
class Rendering:
    """A dialogue as its template renders it: pieces, and the ids of each."""

    pieces: Sequence[Piece]
    ids: Sequence[Sequence[int]]

    @cached_property
    def input_ids(self) -> NDArray[np.int32]:  # (T,)
        return np.fromiter(chain.from_iterable(self.ids), np.int32)

    @cached_property
    def starts(self) -> list[int]:
        """Where each piece begins, in tokens, and where the last one ends."""
        return [0, *accumulate(map(len, self.ids))]

    @cached_property
    def spoken(self) -> list[tuple[int, int, int]]:
        """The pieces of each turn: its first, the first of what its speaker says, and the one after its last."""
        turns: dict[int, list[int]] = {}
        for index, piece in enumerate(self.pieces):
            if piece.turn != NO_TURN:
                turns.setdefault(piece.turn, []).append(index)
        return [
            (of_turn[0], next((k for k in of_turn if self.pieces[k].is_learnable), of_turn[0]), of_turn[-1] + 1)
            for of_turn in turns.values()
        ]

    def targets(self, kinds: Sequence[int]) -> NDArray[np.uint8]:  # (T,)
        """The target kind of each token; ``kinds`` are those of the turns' words."""
        of_piece = [kinds[turn] if is_learnable else 0 for _, turn, _, is_learnable in self.pieces]
        return np.array(of_piece, np.uint8).repeat(list(map(len, self.ids)))

    def bounds(self, num_system: int) -> list[int]:
        """Where each turn after the system turn begins, in tokens, and where the last one ends.

        What comes before the first is the head. The opening of a reply counts as one more turn.
        """
        return [*(self.starts[first] for first, _, _ in self.spoken[num_system:]), self.starts[-1]]

    def opening(self, turn: int) -> list[str]:
        """The pieces of a turn before its speaker's words, as texts."""
        first, said, _ = self.spoken[turn]
        return [piece.text for piece in self.pieces[first:said]]

    def ended_like(self, turn: int, whole: Rendering, of_whole: int) -> Rendering:
        """The rendering without what the template writes only at the end of a dialogue.

        That is what the last turn has after its words, but the same turn in ``whole`` has not.
        """
        _, said, stop = self.spoken[turn]
        _, said_there, stop_there = whole.spoken[of_whole]
        pairs = zip(self.pieces[said + 1 : stop], whole.pieces[said_there + 1 : stop_there], strict=False)
        stop = said + 1 + sum(1 for _ in takewhile(lambda pair: pair[0].text == pair[1].text, pairs))
        return Rendering(self.pieces[:stop], self.ids[:stop])


class Template(Protocol):
    """The interface of a template: rendering, and the tokens that it needs."""

    @property
    def name(self) -> TemplateName:
        """Its name in the config."""
        ...

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Tokens that must each be one id; those the tokenizer lacks are added to it."""
        ...

    @property
    def stop_tokens(self) -> tuple[str, ...]:
        """Tokens that end a reply; the first one ends every trained turn."""
        ...

    @property
    def chat_template(self) -> str:
        """The same rendering as Jinja, for transformers and other readers of its folders."""
        ...

    def render(self, turns: Sequence[Turn], *, for_reply: bool = False) -> list[Piece]:
        """The pieces of a dialogue; ``for_reply``: ending where the assistant's next text begins."""
        ...

    def render_all(self, dialogues: Sequence[Sequence[Turn]]) -> list[list[Piece] | DataError]:
        """The result or error of `render` for each dialogue."""
        ...


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Every string that the tokenizer turns into one special id."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | {str(token) for token in tokenizer.all_special_tokens}
