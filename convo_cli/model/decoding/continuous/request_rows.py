"""The rows of the requests in a continuous batch, which read tokens together.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from convo_cli.model.decoding.continuous.batch_requests import Request, RequestFailed
from convo_cli.model.decoding.decode_loop import closed_up
from convo_cli.model.decoding.failures import failure_of
from convo_cli.model.decoding.passes.fast_forward import FastForward
from convo_cli.model.decoding.passes.fast_rows import FastRows
from convo_cli.model.decoding.passes.forward import Forward, Ids, Rows
from convo_cli.model.decoding.passes.forward_choice import ProvenForward

Part: TypeAlias = tuple[Request, Ids]
"""A request, and the next tokens of its row."""


class RequestRows(Protocol):
    """A row for each request."""

    chunk_beside: int
    """Most tokens of prompts that one pass reads while rows grow."""
    is_padded: bool
    """Whether each row occupies the slots of the longest one."""

    def read(self, parts: Sequence[Part]) -> Tensor:
        """Append tokens to rows, of which some may be new; return the next logits, (parts, V).

        Each row that was joined gets one token.
        """

    def put(self, request: Request, rows: Rows) -> None:
        """Give a new request a row with the first tokens of its prompt."""

    def join(self, request: Request) -> None:
        """Let a row grow with the others, after its prompt has been read."""

    def take(self, request: Request) -> Rows:
        """Return the row of a request that is dropped next, as a batch of one row."""

    def drop(self, requests: Collection[Request]) -> None:
        """Free the rows of requests."""


def rows_for(forward: ProvenForward) -> RequestRows:
    """Return the kind of rows that is fastest for a model."""
    passes = forward.passes
    if isinstance(passes, FastForward) and forward.can_read_together and forward.can_extend:
        return SeparateRows(passes)
    return JoinedRows(passes)


class SeparateRows:
    """Rows that are batches of their own, without padding; all new tokens are read in one pass."""

    # On a CPU, up to about 32 tokens cost little more than one: the weights are read once.
    chunk_beside = 48
    is_padded = False

    def __init__(self, passes: FastForward) -> None:
        self._passes = passes
        self._rows: dict[Request, FastRows] = {}

    def read(self, parts: Sequence[Part]) -> Tensor:
        for request, _ in parts:
            if request not in self._rows:
                self._rows[request] = self._passes.new_row(len(request.query.ids))
        return self._passes.read_together([(self._rows[one], ids) for one, ids in parts])

    def put(self, request: Request, rows: Rows) -> None:
        assert isinstance(rows, FastRows), "rows and passes belong to the same forward"
        self._rows[request] = rows

    def join(self, request: Request) -> None:
        pass

    def take(self, request: Request) -> Rows:
        return self._rows[request]

    def drop(self, requests: Collection[Request]) -> None:
        for request in requests:
            self._rows.pop(request, None)


class JoinedRows:
    """Rows of which those that grow are one padded batch; each prompt is read on its own."""

    chunk_beside = 256
    is_padded = True

    def __init__(self, passes: Forward) -> None:
        self._passes = passes
        self._joined: list[Request] = []
        self._batch: Rows | None = None
        self._apart: dict[Request, Rows] = {}

    def read(self, parts: Sequence[Part]) -> Tensor:
        logits: dict[Request, Tensor] = {}
        if self._batch is not None:
            new = dict(parts)
            grown = self._batch.step([new[request][0] for request in self._joined])
            logits = dict(zip(self._joined, grown.split(1), strict=True))
        for request, ids in parts:
            if request in logits:
                continue
            if request in self._apart:
                logits[request] = self._apart[request].extend(ids)
            else:
                room = request.query.size - len(ids)
                self._apart[request], logits[request] = self._passes.start([ids], room)
        return torch.cat([logits[request] for request, _ in parts])

    def put(self, request: Request, rows: Rows) -> None:
        self._apart[request] = rows

    def join(self, request: Request) -> None:
        rows = self._apart.pop(request)
        if self._batch is None:
            self._batch = rows
        else:
            self._batch.join(rows)
        self._joined.append(request)

    def take(self, request: Request) -> Rows:
        if request in self._apart:
            return self._apart[request]
        assert self._batch is not None, "a request that joined has a row"
        rows: Rows = self._batch.take(self._joined.index(request))
        return rows

    def drop(self, requests: Collection[Request]) -> None:
        for request in requests:
            self._apart.pop(request, None)
        places = [n for n, request in enumerate(self._joined) if request not in requests]
        if not places:
            self._joined, self._batch = [], None
        elif len(places) < len(self._joined) and self._batch is not None:
            places = closed_up(places)
            self._batch.keep(places)
            self._joined = [self._joined[place] for place in places]


def read_apart(
    rows: RequestRows, parts: Sequence[Part], computing: AbstractContextManager[None]
) -> tuple[list[Part], Tensor, list[RequestFailed]]:
    """Read parts one by one, after a pass over all of them failed and changed no row.

    Returns those that were read, their logits (parts, V), and the failures of the others.
    """
    read: list[Part] = []
    logits = [torch.empty(0, 0)]
    failures = []
    for part in parts:
        try:
            with computing:
                logits.append(rows.read([part]))
            read.append(part)
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            failures.append(RequestFailed(part[0], failure))
    return read, torch.cat(logits[1:] or logits), failures
