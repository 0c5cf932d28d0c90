"""A conversation: its turns, the alternative replies to each message, and changes to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from convo_cli.chat.exchanges import (
    Alternative,
    Exchange,
    plain_text,
    require_number,
    size_of,
    trained_turns,
)
from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError
from convo_cli.model.decoding.generator import Reply

MAX_CHARACTERS = 2**23
"""Limit of a conversation with its alternatives: weeks of chat, but as JSON still a line that
convo reads, because a character has at most six bytes there."""


class ConversationFullError(DataError):
    """The conversation has reached `MAX_CHARACTERS`."""


class Conversation:
    """Messages and replies in turn, after an optional system turn; of bounded size.

    A method that changes it does so completely or, if it raises DataError, not at all.
    """

    def __init__(self, system: str | None = None) -> None:
        self._system: tuple[Turn, ...] = ()
        self._exchanges: list[Exchange] = []
        self._num_characters = 0
        self.set_system(system)

    @property
    def turns(self) -> list[Turn]:
        """Return the system turn, if any, then messages and replies in turn.

        ``is_trained`` of a reply follows from the judgements; see `trained_turns`.
        """
        return [*self._system, *trained_turns(self._exchanges)]

    @property
    def exchanges(self) -> Sequence[Exchange]:
        """Return the messages with all of their replies, oldest first."""
        return tuple(self._exchanges)

    @property
    def system(self) -> str | None:
        return self._system[0].text if self._system else None

    @property
    def num_characters(self) -> int:
        """Return the size that `MAX_CHARACTERS` limits."""
        return self._num_characters

    @property
    def last(self) -> Reply | None:
        """Return the last reply as the generator gave it, with its trace.

        None if the conversation is empty, if the last reply was edited, stopped or loaded, or after
        an undo.
        """
        return self._exchanges[-1].chosen_reply.reply if self._exchanges else None

    @property
    def alternatives(self) -> list[str]:
        """Return all replies to the last message, in the order in which they were given."""
        return [one.text for one in self._exchanges[-1].replies] if self._exchanges else []

    @property
    def chosen_number(self) -> int:
        """Return the number of the alternative that belongs to the conversation; 0: none."""
        return self._exchanges[-1].chosen_index + 1 if self._exchanges else 0

    def choose(self, number: int) -> None:
        """Make an alternative the reply to the last message; the first one has number 1."""
        last = self._last_exchange("there is no reply to choose")
        require_number(number, len(last.replies), "alternative")
        self._set(len(self._exchanges) - 1, replace(last, chosen_index=number - 1))

    def undo(self) -> str:
        """Remove the last exchange with its alternatives; return the user's message."""
        last = self._last_exchange("there is nothing to undo")
        self._num_characters -= last.num_characters
        self._exchanges.pop()
        return last.message

    def edit(self, number: int, text: str) -> None:
        """Replace the text of a reply, of which the first one has number 1, and judge it good."""
        text = plain_text(text)
        if not text:
            raise DataError("the reply is empty", hint="type its text")
        self._last_exchange("there is no reply to edit")
        require_number(number, len(self._exchanges), "reply")
        exchange = self._exchanges[number - 1]
        self._require_room(len(text) - len(exchange.chosen_reply.text))
        self._set(number - 1, exchange.with_chosen_reply(Alternative(text, is_good=True)))

    def judge(self, is_good: bool) -> None:
        """Mark the last reply as good or bad; DataError if it is empty."""
        last = self._last_exchange("there is no reply to mark")
        if not last.chosen_reply.text:
            raise DataError("the reply is empty", hint="retry it, or edit it")
        self._set(
            len(self._exchanges) - 1,
            last.with_chosen_reply(replace(last.chosen_reply, is_good=is_good)),
        )

    def set_system(self, text: str | None) -> None:
        """Replace the system turn from the next reply on; blank or None removes it."""
        system = (Turn("system", plain),) if text and (plain := plain_text(text)) else ()
        change = size_of(system) - size_of(self._system)
        self._require_room(change)
        self._system = system
        self._num_characters += change

    def reset(self) -> None:
        """Discard everything but the system turn and the settings."""
        self._exchanges = []
        self._num_characters = size_of(self._system)

    def restore(self, system: str | None, exchanges: Sequence[Exchange]) -> None:
        """Replace the whole conversation, as when a saved one is loaded."""
        turn = (Turn("system", system),) if system else ()
        size = size_of(turn) + sum(one.num_characters for one in exchanges)
        self._require_room(size - self._num_characters)
        self._system, self._exchanges, self._num_characters = turn, list(exchanges), size

    def _set(self, index: int, exchange: Exchange) -> None:
        """Replace or append an exchange."""
        before = self._exchanges[index : index + 1]
        self._num_characters += exchange.num_characters - sum(old.num_characters for old in before)
        self._exchanges[index : index + 1] = [exchange]

    def _last_exchange(self, otherwise: str) -> Exchange:
        if not self._exchanges:
            raise DataError(otherwise, hint="send a message first")
        return self._exchanges[-1]

    def _require_room(self, num_more: int) -> None:
        """Raise ConversationFullError if this number of characters does not fit any more."""
        if num_more >= 0 and self._num_characters + num_more > MAX_CHARACTERS:
            raise ConversationFullError(
                f"the conversation is longer than {MAX_CHARACTERS:,} characters",
                hint="start a new one: /reset",
            )
