"""What a rendered dialogue is made of, and what every template can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from convo_cli.config.schema import TemplateName
from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_TURN = -1
"""The turn index of pieces before the first turn: they start every window."""


class Piece(NamedTuple):
    """A stretch of the rendered dialogue. ``is_learnable`` marks what its speaker says: the text and its end token.

    (A tuple, because there are three for every turn of the data, and tuples are made three times as fast.)
    """

    text: str
    turn: int
    is_special: bool = False
    is_learnable: bool = False


class Template(Protocol):
    """What the rest of convo needs of a template."""

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
        """The same rendering as Jinja, for transformers and whoever reads its folders."""
        ...

    def render(self, turns: Sequence[Turn], *, for_reply: bool = False) -> list[Piece]:
        """The pieces of a dialogue; ``for_reply``: ending where the assistant's next text begins."""
        ...

    def render_all(self, dialogues: Sequence[Sequence[Turn]]) -> list[list[Piece] | DataError]:
        """What `render` returns or raises for each dialogue, all at once."""
        ...


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Every string that the tokenizer turns into one special id."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | {str(token) for token in tokenizer.all_special_tokens}
