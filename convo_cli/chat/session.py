"""One conversation: what was said so far, and the next reply."""

from __future__ import annotations

from collections.abc import Callable

from convo_cli.config.schema import GenerationConfig
from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError
from convo_cli.model.generation import Generator, Reply


class ChatSession:
    """Holds the turns; the history that the model reads is fitted to its window by whole turns at every reply."""

    def __init__(self, generator: Generator, settings: GenerationConfig, *, system: str | None = None) -> None:
        self.generator = generator
        self.settings = settings
        self._system = (Turn("system", system.strip()),) if system and system.strip() else ()
        self.turns: list[Turn] = list(self._system)

    def say(self, text: str, on_text: Callable[[str], None]) -> Reply:
        """Answer what the user said, streaming the reply; both turns then belong to the history.

        Where ``on_text`` raises, or the text does not fit (DataError), the history is as it was before.
        """
        text = text.strip()
        if not text:
            raise DataError("an empty message says nothing", hint="type something")
        turns = [*self.turns, Turn("user", text)]
        reply = self.generator.reply(turns, self.settings, on_text)
        self.turns = [*turns, Turn("assistant", reply.text.strip())]
        return reply

    def reset(self) -> None:
        """Forget everything but the system turn."""
        self.turns = list(self._system)
