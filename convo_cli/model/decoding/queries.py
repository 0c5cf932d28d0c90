"""Prompts that wait for a reply, the batches in which they are answered, and replies.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convo_cli.config.schema import GenerationSettings
from convo_cli.model.decoding.passes.forward import Forward, Ids, Pass, Rows
from convo_cli.model.decoding.trace import Trace

MAX_SLOTS = 16_384  # tokens of prompts and replies in a batch, with padding
_Item = TypeVar("_Item")
Start: TypeAlias = Callable[[Sequence["Query"], int], tuple[Rows, Tensor]]
"""Reads a batch of prompts, given the most tokens by which a row will grow; as `Forward.start`."""


@dataclass(frozen=True, slots=True)
class Query:
    """A history as the prompt of a reply."""

    ids: Ids
    max_new_tokens: int
    """Limit of the reply in tokens: the configured one, or the room left in the window."""
    num_dropped: int
    """Turns dropped from the start of the history because they did not fit."""

    @property
    def size(self) -> int:
        """Return the number of tokens of the prompt and the longest possible reply."""
        return len(self.ids) + self.max_new_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of the model. ``stopped`` is False if it was cut at ``max_new_tokens``."""

    text: str
    ids: tuple[int, ...]
    stopped: bool
    num_dropped: int
    """Turns dropped from the start of the history because they did not fit."""
    trace: Trace | None = field(default=None, compare=False)
    """Its times and probabilities; None unless it was streamed."""


@dataclass(frozen=True, slots=True)
class DialogueReplies:
    """Replies to the assistant turns of one dialogue, and the nll of the real ones."""

    turns: tuple[int, ...]
    """Indices of the turns that were answered; the others do not fit the window."""
    replies: tuple[Reply, ...]
    nll: NDArray[np.float64]
    """(N,) nats of each assistant target, in the order of the examples and of their tokens."""


@dataclass
class Answers:
    """Replies in progress. The index of a query also selects the randomness of its reply."""

    queries: Sequence[Query]
    settings: GenerationSettings
    seed: int
    on_reply: Callable[[int], None]
    """Receives the number of finished replies."""
    on_token: Callable[[], None] = lambda: None
    """Called after each token."""
    ids: list[list[int]] = field(init=False)
    """The ids of each reply so far."""
    num_done: int = 0

    def __post_init__(self) -> None:
        self.ids = [[] for _ in self.queries]

    def finish(self, count: int) -> None:
        """Count ``count`` more replies as finished, and report the total."""
        self.num_done += count
        self.on_reply(self.num_done)

    def batches(self, numbers: Iterable[int], max_rows: int) -> Iterator[list[int]]:
        """Yield batches of query indices with similar lengths, the longest prompts first.

        The first batch needs the most memory, so a lack of memory shows at once.
        """
        ordered = sorted(numbers, key=lambda number: -len(self.queries[number].ids))
        return in_batches(ordered, lambda number: self.queries[number].size, max_rows)


def in_batches(
    items: Iterable[_Item], size_of: Callable[[_Item], int], max_rows: int
) -> Iterator[list[_Item]]:
    """Yield the items in order, in batches limited by rows and by tokens with padding."""
    batch: list[_Item] = []
    width = 0
    for item in items:
        width = max(width, size_of(item))
        if batch and (len(batch) == max_rows or width * (len(batch) + 1) > MAX_SLOTS):
            yield batch
            batch, width = [], size_of(item)
        batch.append(item)
    if batch:
        yield batch


def begin(forward: Forward, queries: Sequence[Query], room: int) -> tuple[Rows, Tensor]:
    """Read the prompts of a batch; return its rows, and the logits (B, V) of the first tokens."""
    return forward.start([query.ids for query in queries], room)


def begin_branches(
    forward: Forward, parts: Sequence[tuple[Pass, int]], queries: Sequence[Query], room: int
) -> tuple[Rows, Tensor]:
    """Do the same for prompts that are the first tokens of dialogues already read.

    Each part is a pass and the number of its tokens that are the prompt.
    """
    logits = torch.cat([one.logits([length - 1]) for one, length in parts])  # (B, V)
    return forward.branch(parts, room), logits
