"""Turns and dialogues: the common form of all shapes of data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from convo_cli.config.schema import TrainOn

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")

SEPARATOR = "\0"
"""Separates texts that are processed together; no text can contain it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance; ``is_trained`` is False if it or its dialogue is marked ``"train": false``."""

    role: Role
    text: str
    is_trained: bool = True
    has_reasoning: bool = field(default=False, compare=False)
    """True if the turn has reasoning in the data, kept in the text or dropped."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Turns in order. ``line`` is the 1-based line of its file, 0 if there is none (a chat)."""

    turns: tuple[Turn, ...]
    line: int = 0
    file: str = field(default="", compare=False)

    @property
    def where(self) -> str:
        """Return the file and line, for error messages."""
        return f"{self.file}:{self.line}" if self.file else f"line {self.line}"


def has_target(turns: Sequence[Turn], train_on: TrainOn) -> bool:
    """Return whether a dialogue has a target; `train` and `validate-data` refuse all others."""
    if train_on == "all":
        return any(turn.is_trained and turn.role != "system" for turn in turns)
    replies = [turn for turn in turns if turn.role == "assistant"]
    return any(turn.is_trained for turn in (replies[-1:] if train_on == "last" else replies))


def is_excluded(turns: Iterable[Turn]) -> bool:
    """Return whether the data excludes every turn from training; such a dialogue is left out."""
    return not any(turn.is_trained for turn in turns)


def as_messages(turns: Iterable[Turn]) -> list[dict[str, str]]:
    """Return the turns in the ``messages`` form that chat templates read."""
    return [{"role": turn.role, "content": turn.text} for turn in turns]
