"""Jobs of the engine, and the events that it emits for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from convo_cli.config.schema import GenerationSettings
from convo_cli.errors import ConvoError
from convo_cli.model.decoding.queries import Query


class BusyError(ConvoError):
    """The engine accepts no more jobs now: its queue is full, or it is stopping."""


class EngineFaultError(ConvoError):
    """A fault of convo ended a job; the engine continues with other jobs."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of the reply's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The reply is complete."""

    reason: Literal["stop", "length"]
    """``length``: it was cut at the query's ``max_new_tokens``."""
    num_reply_tokens: int
    """With the end token, and with the tokens of a stop string."""
    num_reused: int
    """Tokens of the prompt that were not read again."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The reply ended with an error."""

    error: ConvoError


JobEvent: TypeAlias = Piece | Finished | Failed


@dataclass(frozen=True, eq=False)
class Job:
    """A prompt that waits for its reply."""

    query: Query
    settings: GenerationSettings
    seed: int
    stop: tuple[str, ...]
    """The reply ends before the first of these texts."""
    cache_key: str | None
    """A job reuses the row of the last one with its key; without a key, nothing is reused."""
    emit: Callable[[JobEvent], None]
    """Receives pieces, then one `Finished` or `Failed`. It must not block the engine's thread."""
