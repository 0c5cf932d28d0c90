"""A batch of replies that requests join and leave between any two steps.

Prompts are read in chunks, so that a long one does not stall the replies of others for long. A
greedy reply equals `Generator.answer` of its query alone, except after a tie of two logits, because
rounding depends on the batch. A sampled reply depends only on its seed.

If a pass over several rows fails, each row is tried alone, so that only the request at fault fails.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from convo_cli.errors import ConvoError, OutOfMemoryError
from convo_cli.model.decoding.continuous.batch_requests import (
    NewToken,
    Outcome,
    Reading,
    Request,
    RequestFailed,
)
from convo_cli.model.decoding.continuous.kept_prefixes import KeptPrefixes
from convo_cli.model.decoding.continuous.mixed_choice import MixedChooser
from convo_cli.model.decoding.continuous.request_rows import Part, read_apart, rows_for
from convo_cli.model.decoding.continuous.slot_limit import SlotLimit
from convo_cli.model.decoding.failures import ComputingReply, failure_of, not_finite
from convo_cli.model.decoding.passes.forward_choice import ProvenForward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 256
"""Most tokens of prompts that are read in a step while no row grows."""


class ContinuousBatch:
    """Requests that are answered together. Use it from one thread, in inference mode."""

    def __init__(
        self,
        model: PreTrainedModel,
        forward: ProvenForward,
        stop_ids: frozenset[int],
        *,
        max_rows: int,
    ) -> None:
        """Answer one request at a time if the model's rows cannot be computed together."""
        self._rows = rows_for(forward)
        can_join = not self._rows.is_padded or forward.can_join
        self.max_rows = min(max_rows, forward.max_rows) if can_join else 1
        self._can_extend = forward.can_extend
        self._stop_ids = stop_ids
        self._computing = ComputingReply(model)
        self._limit = SlotLimit(model, self.max_rows, is_padded=self._rows.is_padded)
        self._prefixes = KeptPrefixes()
        self._waiting: deque[Request] = deque()
        self._reading: list[Reading] = []
        self._running: list[Request] = []  # their prompts have been read
        self._leaving: set[Request] = set()
        self._chooser = MixedChooser()
        self._outcomes: list[Outcome] = []

    @property
    def num_waiting(self) -> int:
        """Return the number of requests whose prompt is not being read yet."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Return whether a step would do nothing."""
        return not (self._waiting or self._reading or self._running or self._leaving)

    def add(self, request: Request) -> None:
        """Let a request join as soon as there is room; requests join in the order of this call."""
        self._waiting.append(request)

    def remove(self, request: Request) -> None:
        """Let a request leave at the next step, without another outcome."""
        if request in self._waiting:
            self._waiting.remove(request)
        elif request in self._running or any(one.request is request for one in self._reading):
            self._leaving.add(request)

    def clear(self) -> list[Request]:
        """Free all rows and drop all requests; return those that were waiting."""
        waiting = list(self._waiting)
        self._waiting.clear()
        self._prefixes.clear()
        self._forget_rows()
        return waiting

    def step(self) -> list[Outcome]:
        """Let each row grow by a token, and read at most a chunk of prompts."""
        self._outcomes = []
        try:
            with self._computing:
                self._leave()
                self._advance()
        except Exception as error:
            if (failure := failure_of(error)) is None:
                raise
            self._separate(failure)
        return self._outcomes

    def _advance(self) -> None:
        grown: list[Part] = [(request, request.ids[-1:]) for request in self._running]
        if not (begun := self._next_chunks()) and not grown:
            return
        chunks = [(one.request, one.ids[one.num_read : end]) for one, end in begun]
        parts, logits = self._read([*grown, *chunks])
        places = {request: place for place, (request, _) in enumerate(parts)}
        running = [request for request in self._running if request in places]
        if running:
            self._choose(running, logits[: len(running)])
        for reading, end in begun:
            place = places.get(reading.request)
            if place is not None:
                reading.num_read = end
                if end == len(reading.ids):
                    self._reading.remove(reading)
                    self._begin_reply(reading, logits[place : place + 1])

    def _read(self, parts: list[Part]) -> tuple[list[Part], Tensor]:
        """Append tokens to rows; return the parts that were read, and their logits (parts, V)."""
        try:
            with self._computing:
                return parts, self._rows.read(parts)
        except Exception as error:
            if len(parts) == 1 or self._rows.is_padded or failure_of(error) is None:
                raise
            self._prefixes.clear()  # they may hold the memory that is lacking
        parts, logits, failures = read_apart(self._rows, parts, self._computing)
        self._outcomes += failures
        self._leaving.update(one.request for one in failures)
        return parts, logits

    def _next_chunks(self) -> list[tuple[Reading, int]]:
        """Return prompts to read from now, and the number of their tokens after the pass."""
        budget = self._rows.chunk_beside if self._running else CHUNK
        chunks, readings = [], self._readings()
        while budget > 0 and (reading := next(readings, None)) is not None:
            end = self._end_of(reading, budget)
            chunks.append((reading, end))
            budget -= end - reading.num_read
        return chunks

    def _readings(self) -> Iterator[Reading]:
        """Yield the prompts that are being read, then begin others while there is room."""
        yield from list(self._reading)
        while self._waiting and self._has_room(self._waiting[0]):
            yield self._begin_reading(self._waiting.popleft())

    def _end_of(self, reading: Reading, budget: int) -> int:
        end = len(reading.ids)
        return min(end, reading.num_read + budget) if self._can_extend else end

    def _has_room(self, request: Request) -> bool:
        others = [*self._running, *(one.request for one in self._reading)]
        if others and (request.is_suspect or any(other.is_suspect for other in others)):
            return False
        return self._limit.fits(request.query.size, [other.query.size for other in others])

    def _begin_reading(self, request: Request) -> Reading:
        reading = Reading(request, request.known_ids)
        self._reading.append(reading)
        if request.cache_key is not None and self._can_extend:
            found = self._prefixes.take(request.cache_key, reading.ids)
            if found is not None:
                rows, reading.num_read = found
                self._rows.put(request, rows)
                request.num_reused = min(reading.num_read, len(request.query.ids))
        return reading

    def _begin_reply(self, reading: Reading, logits: Tensor) -> None:
        """Choose the first token after a prompt, from logits (1, V)."""
        request = reading.request
        self._running.append(request)
        request.is_suspect = False
        self._rows.join(request)
        chooser = request.choice.chooser(reading.ids)
        if not request.choice.is_usable(logits):
            self._take(request, None)
            return
        (token,) = chooser.choose(logits)
        self._chooser.join(request.choice, chooser)
        self._take(request, token)

    def _choose(self, running: list[Request], logits: Tensor) -> None:
        """Choose the next token of each of these requests, from logits (rows, V)."""
        if len(running) < len(self._running):
            self._chooser.keep([request.choice for request in running])
        tokens = self._chooser.choose([request.choice for request in running], logits)
        for request, token in zip(running, tokens, strict=True):
            self._take(request, token)

    def _take(self, request: Request, token: int | None) -> None:
        """Add a token to a reply; None if it could not be sampled."""
        if request in self._leaving:
            return
        if token is None:
            self._outcomes.append(RequestFailed(request, not_finite()))
            self._leaving.add(request)
            return
        request.ids.append(token)
        is_last = token in self._stop_ids or len(request.ids) >= request.query.max_new_tokens
        self._outcomes.append(NewToken(request, token, is_last))
        if is_last:
            self._leaving.add(request)

    def _leave(self) -> None:
        """Free the rows of requests that have ended."""
        if not self._leaving:
            return
        for request in self._running:
            if request in self._leaving and request.cache_key is not None and self._can_extend:
                # No pass has read the last token.
                ids = request.known_ids[:-1]
                self._prefixes.put(request.cache_key, ids, self._rows.take(request))
        self._rows.drop(self._leaving)
        self._running = [one for one in self._running if one not in self._leaving]
        self._reading = [one for one in self._reading if one.request not in self._leaving]
        self._leaving.clear()
        self._chooser.keep([request.choice for request in self._running])

    def _separate(self, failure: ConvoError) -> None:
        """After a failed pass, fail its only request, or answer its requests one by one."""
        together = [*self._running, *(one.request for one in self._reading)]
        remaining = [request for request in together if request not in self._leaving]
        self._forget_rows()
        self._prefixes.clear()  # they may hold the memory that is lacking
        if len(together) == 1:
            self._outcomes += [RequestFailed(request, failure) for request in remaining]
            return
        if isinstance(failure, OutOfMemoryError):
            self._limit.max_rows = max(1, len(together) // 2)
        for request in reversed(remaining):
            request.is_suspect = True
            self._waiting.appendleft(request)

    def _forget_rows(self) -> None:
        self._rows.drop([*self._running, *(one.request for one in self._reading)])
        self._running, self._reading = [], []
        self._leaving.clear()
        self._chooser.keep([])
