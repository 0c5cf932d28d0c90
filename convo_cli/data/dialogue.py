"""Turns and dialogues: the common form of all shapes of data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from convo_cli.config.schema import TrainOn

Role = Literal["system", "user", "assistant", "tool", "tools"]
"""``tool`` is the result of a tool call; ``tools`` defines the tools, before all other turns."""
ROLES: tuple[Role, ...] = ("system", "user", "assistant")
"""The roles for which every template has a place."""
HEAD_ROLES: frozenset[Role] = frozenset({"tools", "system"})
"""Roles of the turns before the conversation, which every window and prompt keeps."""

SEPARATOR = "\0"
"""Separates texts that are processed together; no text can contain it."""

_CHUNK_CHARACTERS = 2**18
"""Most characters of a chunk of dialogues; about 300 dialogues of DailyDialog."""
_TURN_CHARACTERS = 64
"""Characters that count for the objects of a turn, however short its text is."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance; ``is_trained`` is False if it or its dialogue is marked ``"train": false``."""

    role: Role
    text: str
    is_trained: bool = True
    has_reasoning: bool = field(default=False, compare=False)
    """True if the turn has reasoning in the data, kept in the text or dropped."""
    tool_data: str = ""
    """The keys of a message beside its text that belong to tool calls, as a JSON object.

    They are ``tool_calls`` of an assistant turn, which makes all of it context, or ``tool_call_id``
    and ``name`` of a result. The text of such a turn may be empty.
    """
    references: tuple[str, ...] = ()
    """Other good replies in place of this one; only evaluations read them."""

    @property
    def is_reply(self) -> bool:
        """Return whether the assistant answers here, and does not call a tool."""
        return self.role == "assistant" and not self.tool_data

    @property
    def is_call(self) -> bool:
        return self.role == "assistant" and bool(self.tool_data)

    @property
    def uses_tools(self) -> bool:
        """Return whether only a template that knows tools has a place for the turn."""
        return self.role in ("tool", "tools") or self.is_call

    @property
    def content(self) -> str:
        """The text with the calls."""
        return "\n".join(filter(None, (self.text, self.tool_data)))


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


def chunks(dialogues: Iterable[Dialogue]) -> Iterator[list[Dialogue]]:
    """Yield the dialogues in lists of a bounded number of characters.

    A dialogue with more characters is a list of its own. Work on a list takes memory in proportion
    to its characters, so a number of dialogues would not bound it.
    """
    chunk, num_characters = list[Dialogue](), 0
    for dialogue in dialogues:
        num_own = sum(map(_num_characters, dialogue.turns))
        if chunk and num_characters + num_own > _CHUNK_CHARACTERS:
            yield chunk
            chunk, num_characters = [], 0
        chunk.append(dialogue)
        num_characters += num_own
    if chunk:
        yield chunk


def _num_characters(turn: Turn) -> int:
    texts = len(turn.text) + len(turn.tool_data) + sum(map(len, turn.references))
    return _TURN_CHARACTERS + texts


def has_target(turns: Sequence[Turn], train_on: TrainOn) -> bool:
    """Return whether a dialogue has a target; `train` and `validate-data` refuse all others."""
    if train_on == "all":
        return any(turn.is_trained and (turn.is_reply or turn.role == "user") for turn in turns)
    replies = [turn for turn in turns if turn.is_reply]
    return any(turn.is_trained for turn in (replies[-1:] if train_on == "last" else replies))


def only_calls(turns: Iterable[Turn]) -> bool:
    """Return whether the assistant calls tools, but never replies."""
    own = [turn for turn in turns if turn.role == "assistant"]
    return bool(own) and all(turn.is_call for turn in own)


def is_excluded(turns: Iterable[Turn]) -> bool:
    """Return whether the data excludes every turn from training; such a dialogue is left out."""
    return not any(turn.is_trained for turn in turns)


def begins_exchange(turns: Sequence[Turn], index: int) -> bool:
    """Return whether a window may begin at this turn.

    A tool call, its results and the assistant's turn after them stay together.
    """
    if index == 0 or turns[index].role == "user":
        return True
    before = turns[index - 1]
    return turns[index].role != "tool" and before.role != "tool" and not before.is_call


def as_messages(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    """Return the turns in the ``messages`` form that chat templates read, without definitions."""
    return [
        {"role": turn.role, "content": turn.text, **json.loads(turn.tool_data or "{}")}
        for turn in turns
        if turn.role != "tools"
    ]


def tool_definitions(turns: Sequence[Turn]) -> list[Any] | None:
    """Return the definitions of the tools; None if the dialogue has none."""
    is_defined = bool(turns) and turns[0].role == "tools"
    return list(json.loads(turns[0].text)) if is_defined else None
