"""A batch of replies that requests join and leave between any two steps.

Prompts are read in chunks, so that a long one does not stall the replies of others for long. A
greedy reply equals `Generator.answer` of its query alone, except after a tie of two logits, because
rounding depends on the batch. A sampled reply depends only on its seed.

If a pass over several rows fails, its rows are read again and continued one by one, so that only
the request at fault fails.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from convo_cli.errors import ConvoError
from convo_cli.model.decoding.continuous.batch_requests import (
    NewToken,
    Outcome,
    Reading,
    Request,
    RequestFailed,
)
from convo_cli.model.decoding.continuous.kept_prefixes import KeptPrefixes
from convo_cli.model.decoding.continuous.mixed_choice import MixedChooser
from convo_cli.model.decoding.continuous.slot_limit import SlotLimit
from convo_cli.model.decoding.decode_loop import closed_up
from convo_cli.model.decoding.failures import ComputingReply, failure_of, not_finite
from convo_cli.model.decoding.passes.forward_choice import ProvenForward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 256
"""Tokens of prompts that are read before each step of the other rows."""
_MAX_PREFIXES = 16
_MAX_PREFIX_BYTES = 256 * 2**20


class ContinuousBatch:
    """Requests that are answered together. It is used by one thread, in inference mode."""

    def __init__(
        self,
        model: PreTrainedModel,
        forward: ProvenForward,
        stop_ids: frozenset[int],
        *,
        max_rows: int,
    ) -> None:
        """Answer one request at a time if the model's rows cannot join a batch."""
        self._passes = forward.passes
        self._can_join = getattr(forward, "can_join", False)
        self._can_extend = getattr(forward, "can_extend", False)
        self._stop_ids = stop_ids
        self._computing = ComputingReply(model)
        self.max_rows = min(max_rows, forward.max_rows) if self._can_join else 1
        self._limit = SlotLimit(model, self.max_rows)
        self._prefixes = KeptPrefixes(_MAX_PREFIXES, _MAX_PREFIX_BYTES)
        self._waiting: deque[Request] = deque()
        self._reading: Reading | None = None
        self._running: list[Request] = []
        """Requests in the order of the rows."""
        self._rows: Any = None
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
        return not (self._waiting or self._reading or self._running)

    def add(self, request: Request) -> None:
        """Let a request join as soon as there is room; requests join in the order of this call."""
        self._waiting.append(request)

    def remove(self, request: Request) -> None:
        """Let a request leave at the next step, without another outcome."""
        if self._reading is not None and self._reading.request is request:
            self._reading = None
        elif request in self._running:
            self._leaving.add(request)
        elif request in self._waiting:
            self._waiting.remove(request)

    def clear(self) -> list[Request]:
        """Free all rows and forget all requests; return those that were waiting."""
        waiting = list(self._waiting)
        self._waiting.clear()
        self._prefixes.clear()
        self._leaving.clear()
        self._chooser.keep([])
        self._reading, self._rows, self._running = None, None, []
        return waiting

    def step(self) -> list[Outcome]:
        """Read at most a chunk of prompts, then let each row grow by a token."""
        self._outcomes = []
        self._together(self._leave)
        budget = CHUNK
        while budget > 0 and (reading := self._next_reading()) is not None:
            budget -= self._read(reading, budget)
        if self._running:
            self._together(self._grow)
        return self._outcomes

    def _together(self, compute: Callable[[], None]) -> None:
        """Run a computation on all rows; if it fails, the requests continue one by one."""
        try:
            with self._computing:
                compute()
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            self._separate(failure)

    def _separate(self, failure: ConvoError) -> None:
        is_alone = len(self._running) == 1
        running = [request for request in self._running if request not in self._leaving]
        self._rows, self._running = None, []
        self._leaving.clear()
        self._chooser.keep([])
        self._prefixes.clear()  # they may hold the memory that is lacking
        if is_alone:
            self._outcomes += [RequestFailed(request, failure) for request in running]
            return
        for request in reversed(running):
            request.is_suspect = True
            self._waiting.appendleft(request)

    def _leave(self) -> None:
        if not self._leaving or self._rows is None:
            return
        for place, request in enumerate(self._running):
            if request in self._leaving and request.cache_key is not None:
                self._keep_prefix(request.cache_key, request, self._rows, place)
        kept = [n for n, request in enumerate(self._running) if request not in self._leaving]
        if kept:
            places = closed_up(kept)
            self._rows.keep(places)
            self._running = [self._running[place] for place in places]
        else:
            self._rows, self._running = None, []
        self._leaving.clear()
        self._chooser.keep([request.choice for request in self._running])

    def _keep_prefix(self, key: str, request: Request, rows: Any, place: int) -> None:
        if not self._can_extend:
            return
        ids = request.known_ids[:-1]  # no step has read the last token
        size = len(ids) * self._limit.bytes_per_slot
        self._prefixes.put(key, ids, rows.take(place), size)

    def _next_reading(self) -> Reading | None:
        if self._reading is None and self._waiting and self._has_room(self._waiting[0]):
            request = self._waiting.popleft()
            self._reading = Reading(request, request.known_ids)
        return self._reading

    def _has_room(self, request: Request) -> bool:
        if self._running and (request.is_suspect or self._running[0].is_suspect):
            return False
        sizes = [other.query.size for other in self._running]
        return self._limit.fits(request.query.size, sizes)

    def _read(self, reading: Reading, budget: int) -> int:
        """Read the next tokens of a prompt, and return their number."""
        request = reading.request
        before = reading.num_read
        try:
            with self._computing:
                logits = self._read_chunk(reading, budget)
                if reading.num_read == len(reading.ids):
                    self._reading = None
                    self._begin_reply(reading, logits)
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            self._reading = None
            self._outcomes.append(RequestFailed(request, failure))
            return budget
        return reading.num_read - before

    def _read_chunk(self, reading: Reading, budget: int) -> Tensor:
        request, ids = reading.request, reading.ids
        if reading.rows is None and request.cache_key is not None and self._can_extend:
            found = self._prefixes.take(request.cache_key, ids)
            if found is not None:
                reading.rows, reading.num_read = found
                request.num_reused = min(reading.num_read, len(request.query.ids))
        end = len(ids)
        if self._can_extend:
            end = min(end, reading.num_read + budget)
        part = ids[reading.num_read : end]
        if reading.rows is None:
            reading.rows, logits = self._passes.start([part], request.query.size - end)
        else:
            logits = reading.rows.extend(part)
        reading.num_read = end
        return logits  # (1, V)

    def _begin_reply(self, reading: Reading, logits: Tensor) -> None:
        """Choose the first token, and join the other rows unless it is the last one."""
        request, rows = reading.request, reading.rows
        assert rows is not None, "the prompt has been read"
        chooser = request.choice.chooser(reading.ids)
        (token,) = chooser.choose(logits)
        if self._take(request, token):
            if request.cache_key is not None:
                self._keep_prefix(request.cache_key, request, rows, 0)
            return
        self._chooser.join(request.choice, chooser)
        self._running.append(request)
        if self._rows is None:
            self._rows = rows
        else:
            self._together(lambda: self._rows.join(rows))

    def _grow(self) -> None:
        assert self._rows is not None, "there are rows for the running requests"
        logits = self._rows.step([request.ids[-1] for request in self._running])
        tokens = self._chooser.choose([request.choice for request in self._running], logits)
        for request, token in zip(self._running, tokens, strict=True):
            if token is None:
                self._outcomes.append(RequestFailed(request, not_finite()))
                self._leaving.add(request)
            elif self._take(request, token):
                self._leaving.add(request)

    def _take(self, request: Request, token: int) -> bool:
        """Add a token to a reply, and return whether it is the last one."""
        request.ids.append(token)
        is_last = token in self._stop_ids or len(request.ids) >= request.query.max_new_tokens
        self._outcomes.append(NewToken(request, token, is_last))
        return is_last
