"""Dialogues of a chat: messages are cut where a pause begins, and joined into turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from convo_cli.importers.messages import Conversation, Counts, Message

MAX_CHARACTERS = 2**22
"""Longest dialogue, 4 Mi characters; a chat without pauses or times is cut there."""
NO_REPLY = "dialogues without a reply"
LEADING = "messages of the assistant before the first one of a user"


@dataclass(frozen=True)
class SessionRules:
    """``pause`` is the number of seconds that separates two dialogues."""

    is_assistant: Callable[[str], bool]
    pause: float
    keep_names: bool


@dataclass
class _Session:
    """Turns of the dialogue that is being collected; each is a role and its texts."""

    turns: list[tuple[str, list[str]]] = field(default_factory=list)
    num_characters: int = 0

    def add(self, role: str, text: str) -> None:
        if not self.turns or self.turns[-1][0] != role:
            self.turns.append((role, []))
        self.turns[-1][1].append(text)
        self.num_characters += len(text)


def dialogues_of(
    conversation: Conversation, rules: SessionRules, counts: Counts
) -> Iterator[list[dict[str, str]]]:
    """Yield the messages form of each dialogue that has a reply.

    Messages of one role in a row become one turn, joined by newlines. Those of the assistant before
    the first one of a user are dropped and counted.
    """
    session = _Session()
    before: float | None = None
    for message in conversation.messages:
        is_pause = (
            before is not None
            and message.time is not None
            and abs(message.time - before) >= rules.pause
        )
        if is_pause or session.num_characters + len(message.text) > MAX_CHARACTERS:
            yield from _finished(session, counts)
            session = _Session()
        before = message.time if message.time is not None else before
        if rules.is_assistant(message.speaker):
            if session.turns:
                session.add("assistant", message.text)
            else:
                counts.dropped[LEADING] += 1
        else:
            session.add("user", _user_text(message, keep_names=rules.keep_names))
    yield from _finished(session, counts)


def _user_text(message: Message, *, keep_names: bool) -> str:
    return f"{message.speaker}: {message.text}" if keep_names else message.text


def _finished(session: _Session, counts: Counts) -> Iterator[list[dict[str, str]]]:
    if len(session.turns) >= 2:
        yield [{"role": role, "content": "\n".join(texts)} for role, texts in session.turns]
    elif session.turns:
        counts.left_out[NO_REPLY] += 1
