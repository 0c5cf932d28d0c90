"""Errors of requests as OpenAI-compatible objects, without a traceback, path or version."""

from __future__ import annotations

import asyncio
import http
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from convo_cli.serve.wire.access_log import WriteLine, record_of
from convo_cli.serve.wire.bodies import ClientGoneError
from convo_cli.serve.wire.objects import ApiError, Json, as_json

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LINGER_SECONDS = 2.0
_LINGER_BYTES = 16 * 2**20
_CODES = {404: "not_found", 405: "method_not_allowed"}
_MESSAGES = {
    404: "there is no such path; the API is POST /v1/chat/completions and GET /v1/models",
    405: "this path does not support the method",
}


class Refusals:
    """Middleware that answers an exception of a handler with an error object.

    Any exception but a refusal is a fault of convo: the client gets status 500 without details, and
    ``log_fault`` receives the traceback without the message, which may quote a conversation.
    """

    def __init__(self, app: ASGIApp, log_fault: WriteLine) -> None:
        self._app = app
        self._log_fault = log_fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_whole, has_begun = False, False

        async def counting() -> Message:
            nonlocal is_whole
            message = await receive()
            is_whole = is_whole or not message.get("more_body", False)
            return message

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, counting, noting)
            return
        except ClientGoneError:
            return
        except ApiError as error:
            refusal = error
        except HTTPException as error:
            message = _MESSAGES.get(error.status_code, http.HTTPStatus(error.status_code).phrase)
            code = _CODES.get(error.status_code)
            refusal = ApiError(error.status_code, message, code=code, headers=error.headers)
        except Exception as error:  # noqa: BLE001 - the server continues
            self._log_fault(describe_fault(error))
            refusal = ApiError(500, "the server failed to answer; its log says why")
        if not has_begun:
            record_of(scope).code = refusal.code or ""
            await _send_error(refusal, receive, send, must_close=not is_whole and _has_body(scope))


def describe_fault(error: BaseException) -> str:
    """Return the traceback of an exception without its message."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"Traceback (most recent call last):\n{frames}{type(error).__name__}"


def _has_body(scope: Scope) -> bool:
    names = {name for name, _ in scope["headers"]}
    return bool(names & {b"content-length", b"transfer-encoding"})


async def send_object(
    send: Send, status: int, value: Json, headers: Mapping[str, str] | None = None
) -> None:
    """Send a whole answer."""
    own = {"content-type": "application/json", **(headers or {})}
    await send_bytes(send, status, as_json(value), own)


async def send_bytes(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Send a whole answer with these headers and its length."""
    await send(_start(status, body, headers))
    await send({"type": "http.response.body", "body": body})


def _start(status: int, body: bytes, headers: Mapping[str, str]) -> Message:
    pairs = {**headers, "content-length": str(len(body))}.items()
    encoded = [(name.lower().encode("latin-1"), one.encode("latin-1")) for name, one in pairs]
    return {"type": "http.response.start", "status": status, "headers": encoded}


async def _send_error(refusal: ApiError, receive: Receive, send: Send, *, must_close: bool) -> None:
    headers = dict(refusal.headers)
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    if not must_close:
        await send_object(send, refusal.status, refusal.as_object(), headers)
        return
    # The rest of the body is unread. If the connection were closed now, the system would reset it,
    # and the client could lose the answer; so a bounded part of the rest is read and discarded.
    body = as_json(refusal.as_object())
    own = {"content-type": "application/json", **headers, "connection": "close"}
    await send(_start(refusal.status, body, own))
    await send({"type": "http.response.body", "body": body, "more_body": True})
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_discard(receive), _LINGER_SECONDS)
    await send({"type": "http.response.body", "body": b""})


async def _discard(receive: Receive) -> None:
    num_bytes = 0
    while num_bytes < _LINGER_BYTES:
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if not message.get("more_body", False):
            return
