"""A conversation with a model: the turns, and how the next reply is sampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from convo_cli.chat.conversation import Conversation
from convo_cli.chat.exchanges import Alternative, Exchange, plain_text
from convo_cli.chat.session_lines import SavedLine, line_of, parse_line, require_contract
from convo_cli.chat.session_values import changed_settings, parsed_seed
from convo_cli.chat.streamed import StreamedText
from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError
from convo_cli.model.decoding.generator import Generator, Reply
from convo_cli.text.contract import contract_sha256

_ATTEMPT = 2**32  # above the number of exchanges that a conversation can have


class ChatSession(Conversation):
    """A conversation that a model continues. It reads the last turns that fit its window.

    With a seed, a sampled reply depends only on the seed, the turns before it, and the number of
    replies that the same message got before.
    """

    def __init__(
        self,
        generator: Generator,
        settings: GenerationSettings,
        *,
        system: str | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(system)
        self.generator = generator
        self.settings = settings
        self.seed = seed

    @classmethod
    def from_line(
        cls,
        line: Mapping[str, Any] | SavedLine,
        generator: Generator,
        settings: GenerationSettings | None = None,
        *,
        seed: int | None = None,
    ) -> ChatSession:
        """Return the session of a line of `to_line`; ``settings`` replace its sampling settings.

        Raises DataError if the line is not a session, ChangedError if its contract is not that of
        the model. The line has only the chosen reply to each message.
        """
        saved = line if isinstance(line, SavedLine) else parse_line(line)
        session = cls(generator, settings or saved.record.sampling, seed=seed)
        require_contract(saved, session.contract, generator)
        session.restore(saved.system, saved.exchanges())
        return session

    def to_line(self) -> dict[str, Any]:
        """Return the session as one line of training data, with the chosen replies only."""
        return line_of(self, self.generator, self.contract, self.settings)

    @cached_property
    def contract(self) -> str:
        """Return the hash of the model's contract; a large tokenizer takes a tenth of a second."""
        return contract_sha256(self.generator.encoder)

    def say(self, text: str, on_text: Callable[[str], None]) -> Reply:
        """Answer the user and stream the reply; then add both turns to the history.

        An empty reply belongs to the history too: it can be retried or edited. A KeyboardInterrupt
        keeps both turns, with the reply as far as it was streamed, unless nothing was. After any
        other exception, and if the text does not fit (DataError), the history is as it was.
        """
        text = plain_text(text)
        if not text:
            raise DataError("the message is empty", hint="type a message")
        self._require_room(len(text))

        def keep(reply: Alternative) -> None:
            if self._exchanges:
                self._exchanges[-1] = self._exchanges[-1].without_traces()
            self._set(len(self._exchanges), Exchange(text, (reply,)))

        return self._answer(self._exchanges, text, 0, on_text, keep)

    def retry(self, on_text: Callable[[str], None]) -> Reply:
        """Answer the last message again, with other randomness; the old reply stays an alternative.

        Raises DataError if there is no message. A KeyboardInterrupt keeps the reply as far as it
        was streamed as one more alternative, unless nothing was; after any other exception the
        history is as it was.
        """
        last = self._last_exchange("there is no reply to retry")
        self._require_room(0)

        def keep(reply: Alternative) -> None:
            self._set(len(self._exchanges) - 1, last.with_another(reply))

        return self._answer(self._exchanges[:-1], last.message, len(last.replies), on_text, keep)

    def _answer(
        self,
        before: Sequence[Exchange],
        message: str,
        attempt: int,
        on_text: Callable[[str], None],
        keep: Callable[[Alternative], None],
    ) -> Reply:
        """Stream a reply to a message after these exchanges, and keep it."""
        num_beyond = self._num_beyond(len(before))
        spoken = [turn for exchange in before[num_beyond:] for turn in exchange.turns()]
        history = [*self._system, *spoken, Turn("user", message)]
        streamed = StreamedText(on_text)
        try:
            reply = self.generator.stream(
                history,
                self.settings,
                streamed.push,
                seed=self.seed,
                index=1 + len(before) + _ATTEMPT * attempt,
            )
        except KeyboardInterrupt:
            if text := plain_text(streamed.text):
                keep(Alternative(text))
            raise
        reply = replace(reply, num_dropped=reply.num_dropped + 2 * num_beyond)
        keep(Alternative(plain_text(reply.text), reply=reply))
        return reply

    def _num_beyond(self, num_exchanges: int) -> int:
        """Return the number of first exchanges that cannot fit even at one token a turn."""
        return max(0, 2 * num_exchanges + 1 - self.generator.encoder.max_length) // 2

    def set_value(self, key: str, text: str) -> None:
        """Change a sampling setting, or the seed; DataError names the values that it may have."""
        if key == "seed":
            self.seed = parsed_seed(text)
        else:
            self.settings = changed_settings(self.settings, key, text)
