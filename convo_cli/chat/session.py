"""A conversation with a model: its history and the next reply, both of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError
from convo_cli.model.generation import Generator, Reply

MAX_CHARACTERS = 2**25
"""Limit of a conversation: weeks of chat, but far below any machine's memory."""
MAX_REPLY_CHARACTERS = 2**20
"""Limit of a reply: its number of tokens is bounded, but a token of a foreign tokenizer may have
any length.
"""


class ChatSession:
    """Holds the turns; the history that the model reads is fitted to its window by whole turns at
    every reply.
    """

    def __init__(
        self, generator: Generator, settings: GenerationSettings, *, system: str | None = None
    ) -> None:
        self.generator = generator
        self.settings = settings
        self._system = (Turn("system", system.strip()),) if system and system.strip() else ()
        self.turns: list[Turn] = list(self._system)
        self._num_characters = 0

    def say(self, text: str, on_text: Callable[[str], None]) -> Reply:
        """Answer the user and stream the reply; then add both turns to the history.

        If ``on_text`` raises or the text does not fit (DataError), the history stays unchanged.
        """
        text = text.strip()
        if not text:
            raise DataError("an empty message says nothing", hint="type something")
        if self._num_characters + len(text) > MAX_CHARACTERS:
            raise DataError(
                f"the conversation is over {MAX_CHARACTERS:,} characters long",
                hint="begin another, or /reset this one",
            )
        turns = [*self.turns, Turn("user", text)]
        num_skipped = self._num_beyond(turns)
        num_shown = 0

        def count(piece: str) -> None:
            nonlocal num_shown
            num_shown += len(piece)
            if num_shown > MAX_REPLY_CHARACTERS:
                raise DataError(
                    f"the reply is over {MAX_REPLY_CHARACTERS:,} characters long",
                    hint="lower --max-new-tokens",
                )
            on_text(piece)

        history = [*self._system, *turns[len(self._system) + num_skipped :]]
        reply = self.generator.reply(history, self.settings, count)
        self.turns = [*turns, Turn("assistant", reply.text.strip())]
        self._num_characters += len(text) + len(reply.text)
        return replace(reply, num_dropped=reply.num_dropped + num_skipped)

    def _num_beyond(self, turns: Sequence[Turn]) -> int:
        """Return how many first turns, in pairs, cannot fit the window even if each later turn is
        one token.
        """
        num_spoken = len(turns) - len(self._system)
        return max(0, num_spoken - self.generator.encoder.max_length) // 2 * 2

    def reset(self) -> None:
        """Discard everything but the system turn."""
        self.turns = list(self._system)
        self._num_characters = 0
