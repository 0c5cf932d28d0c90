"""The text of a reply while it is streamed."""

from __future__ import annotations

from collections.abc import Callable

from convo_cli.errors import DataError

MAX_REPLY_CHARACTERS = 2**20
"""Limit of a reply, because a token of a foreign tokenizer may have any length."""


class StreamedText:
    """Passes on the pieces of a reply, and keeps them in case the reply is stopped."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self._pieces: list[str] = []
        self._num_characters = 0

    def push(self, piece: str) -> None:
        """Pass a piece on; DataError if the reply is too long."""
        self._num_characters += len(piece)
        if self._num_characters > MAX_REPLY_CHARACTERS:
            raise DataError(
                f"the reply is longer than {MAX_REPLY_CHARACTERS:,} characters",
                hint="lower max_new_tokens",
            )
        self._pieces.append(piece)
        self._on_text(piece)

    @property
    def text(self) -> str:
        return "".join(self._pieces)
