"""The one form of a dialogue that the rest of convo sees, whatever shape its line had on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance; ``is_trained`` is False where the data says ``"train": false``."""

    role: Role
    text: str
    is_trained: bool = True


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Turns in order. ``line`` is the 1-based line of its file, 0 where there is none (a chat)."""

    turns: tuple[Turn, ...]
    line: int = 0


def as_messages(turns: Iterable[Turn]) -> list[dict[str, str]]:
    """The turns as the ``messages`` form that chat templates read."""
    return [{"role": turn.role, "content": turn.text} for turn in turns]
