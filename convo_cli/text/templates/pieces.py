"""Pieces of a rendered dialogue, their ids, and the interface of templates.

Shapes: T tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, takewhile
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from convo_cli.config.schema import TemplateName
from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError
from convo_cli.text.tokenizers.vocabulary import TokenFinder
from convo_cli.wording import counted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Agreement: TypeAlias = Literal["exact", "prefix", "none"]
"""Where a reply that is trained on must begin.

exact: where its generation prompt ends; prefix: after its generation prompt, and what the template
writes in between is no target; none: after what the template writes before it.
"""
NO_TURN = -1
"""Turn index of the pieces before the first turn, which begin every window."""


class MovedReplyError(DataError):
    """A reply that is trained on is not rendered as it would be as the last of its dialogue."""


class Piece(NamedTuple):
    """A span of the rendered dialogue.

    It is a tuple, because every turn has three, and tuples are created three times as fast as
    dataclasses.
    """

    text: str
    turn: int
    is_special: bool = False
    is_target_text: bool = False
    """True for the speaker's words, the text and its end token: targets if the turn is trained."""


@dataclass(frozen=True)
class Rendering:
    """A rendered dialogue: its pieces, and the ids of each."""

    pieces: Sequence[Piece]
    ids: Sequence[Sequence[int]]

    @cached_property
    def input_ids(self) -> NDArray[np.int32]:  # (T,)
        return np.fromiter(chain.from_iterable(self.ids), np.int32)

    @cached_property
    def starts(self) -> list[int]:
        """The token position at which each piece begins, and the end of the last one."""
        return [0, *accumulate(map(len, self.ids))]

    @cached_property
    def spoken(self) -> list[tuple[int, int, int]]:
        """For each turn the indices of its first piece, its first target text, and its end."""
        turns: dict[int, list[int]] = {}
        for index, piece in enumerate(self.pieces):
            if piece.turn != NO_TURN:
                turns.setdefault(piece.turn, []).append(index)
        return [
            (
                of_turn[0],
                next((k for k in of_turn if self.pieces[k].is_target_text), of_turn[0]),
                of_turn[-1] + 1,
            )
            for of_turn in turns.values()
        ]

    def targets(self, kinds: Sequence[int]) -> NDArray[np.uint8]:  # (T,)
        """Return the target kind of each token; ``kinds`` has one for each turn."""
        of_piece = [kinds[turn] if is_target else 0 for _, turn, _, is_target in self.pieces]
        return np.array(of_piece, np.uint8).repeat(list(map(len, self.ids)))

    def bounds(self, num_system: int) -> list[int]:
        """Return where each turn after the system turn begins and the last one ends, in tokens.

        Tokens before the first position are the head. The opening of a reply counts as one more
        turn.
        """
        return [*(self.starts[first] for first, _, _ in self.spoken[num_system:]), self.starts[-1]]

    def describe_head(self, num_system: int, *, is_folded: bool) -> str:
        """Return words for what every window and prompt has besides its turns; empty for nothing.

        With ``is_folded``, the template writes the system text into a user turn.
        """
        if is_folded:
            return "the system text, which the template writes into a user turn"
        num_tokens = self.bounds(num_system)[0]
        is_system = any(0 <= piece.turn < num_system for piece in self.pieces)
        what = "of system text" if is_system else "that every window repeats"
        return f"{counted(num_tokens, 'token')} {what}" if num_tokens else ""

    def opening(self, turn: int) -> list[str]:
        """Return the texts of the pieces of a turn before its speaker's words."""
        first, said, _ = self.spoken[turn]
        return [piece.text for piece in self.pieces[first:said]]

    def ended_like(self, turn: int, whole: Rendering, of_whole: int) -> Rendering:
        """Return the rendering without what the template writes only at the end of a dialogue.

        That is the text after the words of the last turn that the same turn in ``whole`` lacks.
        """
        _, said, stop = self.spoken[turn]
        _, said_there, stop_there = whole.spoken[of_whole]
        after, after_there = self.pieces[said + 1 : stop], whole.pieces[said_there + 1 : stop_there]
        pairs = zip(after, after_there, strict=False)
        num_same = sum(1 for _ in takewhile(lambda pair: pair[0].text == pair[1].text, pairs))
        stop = said + 1 + num_same
        return Rendering(self.pieces[:stop], self.ids[:stop])


class Template(Protocol):
    """Interface of a template: rendering, and the tokens that it needs."""

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
        """The same rendering as Jinja, for transformers and programs that read its folders."""
        ...

    @property
    def options(self) -> dict[str, Any]:
        """The values that ``chat_template`` gives to its own variables."""
        ...

    @property
    def agreement(self) -> Agreement:
        """Where replies must begin; exact for convo's own templates."""
        ...

    @property
    def written_tokens(self) -> Collection[str]:
        """Special tokens that it writes, also those that the tokenizer does not call special."""
        ...

    def render(self, turns: Sequence[Turn], *, for_reply: bool = False) -> list[Piece]:
        """Return the pieces of a dialogue.

        With ``for_reply`` they end where the assistant's next text begins. MovedReplyError if the
        replies that are trained on have to be rendered one by one.
        """
        ...

    def render_all(self, dialogues: Sequence[Sequence[Turn]]) -> list[list[Piece] | DataError]:
        """Return the result or error of `render` for each dialogue."""
        ...


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Return every string that the tokenizer turns into one special id."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | {str(token) for token in tokenizer.all_special_tokens}


def written_tokens(tokenizer: PreTrainedTokenizerBase, own_text: str) -> set[str]:
    """Return the added tokens that the template writes.

    Some tokenizers do not mark all of them as special, such as those of ChatML.
    """
    contents = (token.content for token in tokenizer.added_tokens_decoder.values())
    added = {content for content in contents if content.strip()}
    return {own_text[start:stop] for start, stop in TokenFinder(added).find(own_text)}
