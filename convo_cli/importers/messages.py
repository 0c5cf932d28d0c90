"""Messages of chats, the counts of an import, and its report."""

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


@dataclass(frozen=True)
class Speaker:
    """A person of the source, the role in the output, and the number of messages."""

    name: str
    role: str
    num_messages: int


@dataclass(frozen=True)
class ImportReport:
    """What was read, written and dropped. Times are in seconds."""

    format: str
    num_dialogues: int
    num_turns: int
    speakers: tuple[Speaker, ...]
    dropped: dict[str, int]
    """Messages without speech, by reason."""
    left_out: dict[str, int]
    """Dialogues that were not written, by reason."""
    num_continuations: int
    num_backward: int
    """Messages that are dated before the one above them."""
    num_removed_characters: int
    notes: tuple[str, ...]
    """What convo decided although the source allows something else."""
    first_time: float | None
    last_time: float | None
    personal: dict[str, int]
    """E-mail addresses, phone numbers and postal addresses in the written texts."""
