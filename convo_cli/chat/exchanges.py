"""Exchanges of a conversation: a message, the replies that the model gave to it, the chosen one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError
from convo_cli.model.decoding.generator import Reply
from convo_cli.wording import counted

_TURN_CHARACTERS = 64
"""Characters that count for the objects of a turn, however short its text is."""

_LINE_END = re.compile(r"\r\n?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class Alternative:
    """One reply to a message. Its text may be empty, because a model may say nothing."""

    text: str
    is_good: bool | None = None
    """The judgement of the user; an edited reply is good. None without one."""
    reply: Reply | None = field(default=None, compare=False)
    """What the generator returned; None for a text that was edited, stopped or loaded."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A message of the user with at least one reply. ``chosen_index`` selects from ``replies``."""

    message: str
    replies: tuple[Alternative, ...]
    chosen_index: int = 0

    @property
    def chosen_reply(self) -> Alternative:
        """Return the reply that belongs to the conversation."""
        return self.replies[self.chosen_index]

    @property
    def num_characters(self) -> int:
        texts = [self.message, *(one.text for one in self.replies)]
        return sum(map(len, texts)) + _TURN_CHARACTERS * len(texts)

    def with_another(self, reply: Alternative) -> Exchange:
        """Add a reply and choose it."""
        return replace(self, replies=(*self.replies, reply), chosen_index=len(self.replies))

    def with_chosen_reply(self, reply: Alternative) -> Exchange:
        """Replace the chosen reply."""
        replies = (
            *self.replies[: self.chosen_index],
            reply,
            *self.replies[self.chosen_index + 1 :],
        )
        return replace(self, replies=replies)

    def without_traces(self) -> Exchange:
        """Drop the results of the generator, to free the memory of ids and traces."""
        return replace(self, replies=tuple(replace(one, reply=None) for one in self.replies))

    def turns(self, *, is_trained: bool = True) -> tuple[Turn, Turn]:
        """Return both turns; ``is_trained`` is that of the reply."""
        return Turn("user", self.message), Turn("assistant", self.chosen_reply.text, is_trained)


def marks(exchanges: Sequence[Exchange]) -> list[bool | None]:
    """Return the value of ``"train"`` for each reply; None if the reply gets no such key.

    A bad reply gets False. Once a reply is good, replies without a judgement get False too, because
    the user has chosen what to train on.
    """
    otherwise = False if any(exchange.chosen_reply.is_good for exchange in exchanges) else None
    judged = [exchange.chosen_reply.is_good for exchange in exchanges]
    return [otherwise if is_good is None else is_good for is_good in judged]


def trained_turns(exchanges: Sequence[Exchange]) -> Iterator[Turn]:
    """Yield the turns of a conversation, the replies with their `marks`."""
    for exchange, mark in zip(exchanges, marks(exchanges), strict=True):
        yield from exchange.turns(is_trained=mark is not False)


def plain_text(text: str) -> str:
    """Return a text as data may hold it: convo reads the line of a session back unchanged.

    White space at the ends, control characters and half surrogate pairs are removed; line ends are
    newlines.
    """
    text = _CONTROL.sub("", _LINE_END.sub("\n", text))
    return text.encode("utf-8", "ignore").decode("utf-8").strip()


def size_of(turns: Sequence[Turn]) -> int:
    """Return the size of turns, in the unit of ``Exchange.num_characters``."""
    return sum(_TURN_CHARACTERS + len(turn.text) for turn in turns)


def require_number(number: int, count: int, what: str) -> None:
    """Raise DataError unless the number is one from 1 to ``count``; ``what`` is counted."""
    if not 1 <= number <= count:
        message = f"there is no {what} {number}, only {counted(count, what)}"
        raise DataError(message, hint=f"give a number from 1 to {count}")
