"""One request and its answer: work that ends when the client leaves or the time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from convo_cli.serve.jobs import Failed, Finished, JobEvent, Piece
from convo_cli.serve.wire.bodies import ClientGoneError
from convo_cli.serve.wire.objects import ApiError

if TYPE_CHECKING:
    from starlette.types import Receive, Send

T = TypeVar("T")

MAX_REPLY_CHARACTERS = 2**20
"""Limit of a reply, because a token of a foreign tokenizer may have any length."""
_TOO_LONG = Piece("")
"""Marks the end of a reply that is too long."""
_STREAM_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8")]


class Exchange:
    """Waits for work on an answer until it is done, the client leaves, or the time is over.

    The body of the request has been read.
    """

    def __init__(self, receive: Receive, seconds: float) -> None:
        self._gone = asyncio.ensure_future(_disconnect(receive))
        self._end = asyncio.get_running_loop().time() + seconds

    async def until(self, work: Awaitable[T]) -> T:
        """Return the result of the work.

        Raises ClientGoneError if the client leaves, ApiError 503 when the time is over; the work is
        then cancelled.
        """
        task = asyncio.ensure_future(work)
        try:
            left = self._end - asyncio.get_running_loop().time()
            await asyncio.wait(
                {task, self._gone}, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED
            )
            if task.done():
                return task.result()
            if self._gone.done():
                raise ClientGoneError
            message = "the answer took too long: the server is busy"
            raise ApiError(503, message, code="timeout", retry_after=30)
        finally:
            task.cancel()

    def close(self) -> None:
        """Stop watching the client."""
        self._gone.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventQueue:
    """Passes events from the engine's thread to the event loop.

    A client that reads slowly cannot fill it: a reply has a bounded number of characters.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Piece | Finished | Failed] = asyncio.Queue()
        self._num_characters = 0

    def emit(self, event: JobEvent) -> None:
        """Add an event, from any thread; it is lost if the event loop has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._add, event)

    def _add(self, event: JobEvent) -> None:
        if self._is_too_long:
            return
        if isinstance(event, Piece):
            self._num_characters += len(event.text)
        if self._is_too_long:
            self._events.put_nowait(_TOO_LONG)  # `next` may be waiting already
        else:
            self._events.put_nowait(event)

    @property
    def _is_too_long(self) -> bool:
        return self._num_characters > MAX_REPLY_CHARACTERS

    async def next(self) -> Piece | Finished | Failed:
        """Return the next event; ApiError if the reply is too long."""
        event = await self._events.get()
        if event is _TOO_LONG or self._is_too_long:
            message = f"the reply is longer than {MAX_REPLY_CHARACTERS:,} characters"
            raise ApiError(500, message, code="reply_too_long")
        return event


class EventStream:
    """The response of a stream, which begins with its first event."""

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
        self.has_begun = False

    async def push(self, event: bytes, *, is_last: bool = False) -> None:
        """Send an event; wait while the client reads too slowly."""
        if not self.has_begun:
            self.has_begun = True
            start = {"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS}
            await self._exchange.until(self._send(start))
        message = {"type": "http.response.body", "body": event, "more_body": not is_last}
        await self._exchange.until(self._send(message))
