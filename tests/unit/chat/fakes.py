"""A model for tests of conversations: it gives chosen replies, and renders as a real one."""

from __future__ import annotations

from typing import Any

from convo_cli.model.decoding.generator import Reply


class Scripted:
    """Answers with the next given text, in pieces of three characters; then repeats the message.

    An exception among the texts is raised after the pieces before it.
    """

    folder = None
    loaded = None

    def __init__(self, encoder: Any, *replies: str | BaseException) -> None:
        self.encoder = encoder
        self.replies = list(replies)
        self.asked: list[Any] = []
        self.indices: list[int] = []

    def stream(self, history, settings, on_text, *, seed, index):
        self.asked.append([(turn.role, turn.text) for turn in history])
        self.indices.append(index)
        text = self.replies.pop(0) if self.replies else history[-1].text
        if isinstance(text, BaseException):
            raise text
        for start in range(0, len(text), 3):
            on_text(text[start : start + 3])
        return Reply(text, (1,), True, 0)


def ignore(text: str) -> None:
    """Show nothing of a reply."""
