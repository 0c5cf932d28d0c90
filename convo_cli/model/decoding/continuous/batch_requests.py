"""Requests to a continuous batch, and their outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from convo_cli.config.schema import GenerationSettings
from convo_cli.errors import ConvoError
from convo_cli.model.decoding.continuous.mixed_choice import RowChoice
from convo_cli.model.decoding.queries import Query


@dataclass(eq=False)
class Request:
    """A query with its settings, and the reply so far."""

    query: Query
    settings: GenerationSettings
    seed: int
    cache_key: str | None = None
    """A request reuses the row of the last one with its key; without a key, nothing is reused."""
    ids: list[int] = field(default_factory=list)
    """The ids of the reply so far."""
    num_reused: int = 0
    """Tokens of the prompt that were not read again."""
    is_suspect: bool = False
    """A pass over this row and others failed, so it is read again alone."""
    choice: RowChoice = field(init=False)

    def __post_init__(self) -> None:
        self.choice = RowChoice(self.settings, self.seed)

    @property
    def known_ids(self) -> list[int]:
        """Return the prompt and the reply so far."""
        return [*self.query.ids, *self.ids]


@dataclass(frozen=True)
class NewToken:
    """The next token of a reply."""

    request: Request
    token: int
    is_last: bool
    """Whether the token is a stop token, or the reply has reached its limit."""


@dataclass(frozen=True)
class RequestFailed:
    """A request left the batch because of an error."""

    request: Request
    error: ConvoError


Outcome: TypeAlias = NewToken | RequestFailed


@dataclass
class Reading:
    """A request whose prompt is being read."""

    request: Request
    ids: Sequence[int]
    """The prompt, and the reply so far of a request that begins again."""
    num_read: int = 0
