"""A conversation with a model: its history and its next reply, both of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError
from convo_cli.model.decoding.generator import Generator, Reply

MAX_CHARACTERS = 2**25
"""Limit of a conversation: weeks of chat, but far below any machine's memory."""
MAX_REPLY_CHARACTERS = 2**20
"""Limit of a reply, because a token of a foreign tokenizer may have any length."""


class ChatSession:
    """Holds the turns of a conversation. The model reads the last ones that fit its window.

    With a seed, the same messages get the same sampled replies.
    """

    def __init__(
        self,
        generator: Generator,
        settings: GenerationSettings,
        *,
        system: str | None = None,
        seed: int | None = None,
    ) -> None:
        self.generator = generator
        self.settings = settings
        self._system = (Turn("system", system.strip()),) if system and system.strip() else ()
        self.turns: list[Turn] = list(self._system)
        self._num_characters = 0
        self._seed = seed
        self._num_asked = 0

    def say(self, text: str, on_text: Callable[[str], None]) -> Reply:
        """Answer the user and stream the reply; then add both turns to the history.

        A KeyboardInterrupt keeps both turns, with the reply as far as it was streamed, unless
        nothing was. After any other exception, and if the text does not fit (DataError), the
        history is as it was.
        """
        text = text.strip()
        if not text:
            raise DataError("the message is empty", hint="type something")
        if self._num_characters + len(text) > MAX_CHARACTERS:
            raise DataError(
                f"the conversation is longer than {MAX_CHARACTERS:,} characters",
                hint="start a new one: /reset",
            )
        turns = [*self.turns, Turn("user", text)]
        num_skipped = self._num_beyond(turns)
        streamed: list[str] = []
        num_streamed = 0

        def stream(piece: str) -> None:
            nonlocal num_streamed
            num_streamed += len(piece)
            if num_streamed > MAX_REPLY_CHARACTERS:
                raise DataError(
                    f"the reply is longer than {MAX_REPLY_CHARACTERS:,} characters",
                    hint="lower --max-new-tokens",
                )
            streamed.append(piece)
            on_text(piece)

        history = [*self._system, *turns[len(self._system) + num_skipped :]]
        self._num_asked += 1  # so that the same message gets another sampled reply
        try:
            reply = self.generator.stream(
                history, self.settings, stream, seed=self._seed, index=self._num_asked
            )
        except KeyboardInterrupt:
            self._keep(turns, "".join(streamed))
            raise
        self._keep(turns, reply.text, is_whole=True)
        return replace(reply, num_dropped=reply.num_dropped + num_skipped)

    def _keep(self, turns: list[Turn], reply: str, *, is_whole: bool = False) -> None:
        """Add the user's turn, the last of ``turns``, and the reply to the history."""
        if is_whole or reply.strip():
            self.turns = [*turns, Turn("assistant", reply.strip())]
            self._num_characters += len(turns[-1].text) + len(reply)

    def _num_beyond(self, turns: Sequence[Turn]) -> int:
        """Return the number of first turns, in pairs, that cannot fit even at one token each."""
        num_spoken = len(turns) - len(self._system)
        return max(0, num_spoken - self.generator.encoder.max_length) // 2 * 2

    def reset(self) -> None:
        """Discard everything but the system turn."""
        self.turns = list(self._system)
        self._num_characters = 0
