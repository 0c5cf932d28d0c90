"""The access log: one line for each request, without texts of a user or the model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

WriteLine = Callable[[str], None]
"""Writes a line, or a traceback, to the log."""

_MAX_PATH_CHARACTERS = 80
_RECORD = "convo.record"
CLIENT_GONE = 499
"""Status in the log if the client left before its answer; it is never sent."""


@dataclass
class RequestRecord:
    """Facts of a request for its line in the log."""

    status: int = 0
    code: str = ""
    """The ``code`` of the error object; empty if the request was answered."""
    model: str = ""
    num_prompt: int = 0
    num_reply: int = 0


def record_of(scope: Scope) -> RequestRecord:
    """Return the record of a request, which `AccessLog` adds to its scope."""
    record: RequestRecord = scope[_RECORD]
    return record


class AccessLog:
    """Middleware that writes the line of each request when it is over."""

    def __init__(self, app: ASGIApp, write_line: WriteLine | None) -> None:
        self._app = app
        self._write_line = write_line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = scope[_RECORD] = RequestRecord()
        start = time.monotonic()

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            if self._write_line is not None:
                self._write_line(_line(scope, record, time.monotonic() - start))


def _line(scope: Scope, record: RequestRecord, seconds: float) -> str:
    parts = [shown(scope["method"], 10), shown(scope["path"], _MAX_PATH_CHARACTERS)]
    parts.append(str(record.status or CLIENT_GONE))
    if record.code:
        parts.append(record.code)
    if record.model:
        parts += [shown(record.model, 100), f"{record.num_prompt}+{record.num_reply} tokens"]
    return " ".join((*parts, f"{seconds:.2f} s"))


def shown(text: str, limit: int) -> str:
    """Return a text of the client for the log: bounded, and with escapes for all but ASCII."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    return ascii(cut)[1:-1]
