"""Connections of the server, limited in number and in the time of a slow client.

uvicorn limits neither the time in which headers and body arrive nor the number of idle connections.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from convo_cli.serve.wire.objects import as_json, error_object

MAX_CONNECTIONS = 512
SECONDS_TO_SEND = 30.0
"""Time for a whole request, from its first byte, or from the connection if it is the first one."""
SECONDS_TO_READ = 60.0
"""Time in which a client must read a part of an answer that waits to be sent."""
_SECONDS_TO_CLOSE = 10.0
_MAX_ACCEPTED = 128


class Waiting:
    """Connections that wait for their client, those that have waited longest first."""

    def __init__(
        self,
        max_connections: int = MAX_CONNECTIONS,
        seconds_to_send: float = SECONDS_TO_SEND,
        seconds_to_read: float = SECONDS_TO_READ,
    ) -> None:
        self.max_connections = max_connections
        self.seconds_to_send = seconds_to_send
        self.seconds_to_read = seconds_to_read
        self._waiting: dict[Connection, None] = {}

    def add(self, connection: Connection) -> None:
        self._waiting[connection] = None

    def remove(self, connection: Connection) -> None:
        self._waiting.pop(connection, None)

    def pop_longest(self) -> Connection | None:
        """Remove and return the connection that has waited longest, if any does."""
        oldest = next(iter(self._waiting), None)
        if oldest is not None:
            self.remove(oldest)
        return oldest


class Connection(H11Protocol):
    """One connection. If there are too many, the one that has waited longest is closed."""

    waiting: Waiting

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sending: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self.waiting.max_connections:
            idle = self.waiting.pop_longest()
            if idle is None:
                self._refuse(503, "the server has too many connections", "overloaded")
                return
            idle.transport.abort()
            self.connections.discard(idle)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.remove(self)
        self._stop_sending_timer()
        self._stop_reading_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._sending is None and self._is_receiving():
            self._await_request()
        super().data_received(data)
        if not self._is_receiving():
            self._stop_sending_timer()
            self.waiting.remove(self)

    def on_response_complete(self) -> None:
        super().on_response_complete()  # may begin the answer to the next request
        if self._is_receiving():
            self.waiting.add(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading = self.loop.call_later(self.waiting.seconds_to_read, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_reading_timer()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._abort_soon()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP with a JSON error; uvicorn's own answer is plain text."""
        self._refuse(400, "this is not a valid HTTP request", "invalid_http")

    def _is_receiving(self) -> bool:
        """Return whether the client has a request to send, or to finish."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def _await_request(self) -> None:
        self.waiting.add(self)
        self._sending = self.loop.call_later(self.waiting.seconds_to_send, self._end_slow_request)

    def _end_slow_request(self) -> None:
        self._sending = None
        self._refuse(408, "the request took too long to arrive", "request_timeout")

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer without the application, if no other answer has begun, and close."""
        if self.transport.is_closing():
            return
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = as_json(error_object(status, message, code=code))
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("x-content-type-options", "nosniff"),
                ("cache-control", "no-store"),
                ("connection", "close"),
            ]
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        self.transport.close()
        self._abort_soon()

    def _abort_soon(self) -> None:
        """Close the connection even if the client does not read the rest of the answer."""
        self._stop_reading_timer()
        self._reading = self.loop.call_later(_SECONDS_TO_CLOSE, self.transport.abort)

    def _stop_sending_timer(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _stop_reading_timer(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None


def connection_type(waiting: Waiting) -> type[Connection]:
    """Return the type of the connections that share ``waiting``; uvicorn creates them."""
    return type("SharedConnection", (Connection,), {"waiting": waiting})


def connection_limit(num_descriptors: int) -> int:
    """Return how many connections a process with so many file descriptors can have."""
    return max(16, min(MAX_CONNECTIONS, num_descriptors - 256))


def accept_limit(num_descriptors: int) -> int:
    """Return how many connections are accepted at once, before the first of them is closed."""
    return max(4, min(_MAX_ACCEPTED, (num_descriptors - connection_limit(num_descriptors)) // 4))
