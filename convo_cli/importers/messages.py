"""Messages of chats, and the counts of an import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Message(NamedTuple):
    """One message of a person. ``time`` is in seconds, None if the source has none."""

    speaker: str
    text: str
    time: float | None = None


class Conversation(NamedTuple):
    """The messages of one chat, channel or thread, in order; they may be read only once."""

    title: str
    messages: Iterable[Message]


@dataclass
class Counts:
    """Counts that the readers and the sessions add to."""

    dropped: Counter[str] = field(default_factory=Counter)
    """Messages that are no speech, by reason: media, system lines, deleted, calls, no text."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Dialogues that were read but not written, by reason."""
    num_continuations: int = 0
    """Lines after the first one of a message. Each could be a forged turn."""
    num_backward: int = 0
    """Messages that are dated before the one above them."""
    notes: list[str] = field(default_factory=list)
    """What a reader decided although the source allows something else."""
    num_removed_characters: int = 0
    """Control characters and invisible characters."""
