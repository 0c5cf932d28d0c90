"""Bodies of requests: read up to a limit, and decoded as strict JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from convo_cli.data.strict_json.decoder import UNREADABLE, may_repeat_key, num_keys
from convo_cli.serve.wire.objects import ApiError
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from starlette.types import Receive

MAX_BODY_BYTES = 2 * 2**20
"""Longest body: far more text than the window of any model."""
_MAX_BODIES_BYTES = 64 * 2**20
"""Limit of all bodies that are read at the same time."""
_ANYTHING = msgspec.json.Decoder()


class ClientGoneError(Exception):
    """The client closed its connection, so no answer is needed."""


class Bodies:
    """Reads bodies, with a limit for each and for all together."""

    def __init__(
        self, max_bytes: int = MAX_BODY_BYTES, max_together: int = _MAX_BODIES_BYTES
    ) -> None:
        self._max_bytes = max_bytes
        self._free = max_together

    async def read(self, receive: Receive) -> bytes:
        """Return the body; ApiError 413 if it is too long, 503 if all bodies together are."""
        body = bytearray()
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                part: bytes = message.get("body", b"")
                if len(body) + len(part) > self._max_bytes:
                    raise too_long(self._max_bytes)
                if len(part) > self._free:
                    reason = "the server is reading too many long requests"
                    raise ApiError(503, reason, code="overloaded", retry_after=5)
                self._free -= len(part)
                body += part
                if not message.get("more_body", False):
                    return bytes(body)
        finally:
            self._free += len(body)


def too_long(max_bytes: int = MAX_BODY_BYTES) -> ApiError:
    """Return the refusal of a body with more bytes."""
    return ApiError(413, f"the body is longer than {max_bytes:,} bytes", code="request_too_large")


def decode(raw: bytes) -> Any:
    """Return the value of a body; ApiError 400 unless it is strict JSON.

    Invalid UTF-8, half of a surrogate pair, NaN, a number beyond the range of a double, a repeated
    key and nesting beyond 64 levels are refused, as in the lines of a data file.
    """
    try:
        value = _ANYTHING.decode(raw)
        count = num_keys(value)
    except RecursionError:
        raise _invalid("it is nested too deeply") from None
    except OverflowError:
        raise _invalid("a number is too large") from None
    except UNREADABLE as error:
        raise _invalid(str(error)) from None
    if may_repeat_key(raw, count):
        json.loads(raw, object_pairs_hook=_require_different_keys)
    return value


def _require_different_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict[str, Any]()
    for key, value in pairs:
        if key in found:
            raise _invalid(f"the key {quoted(key)} occurs more than once")
        found[key] = value
    return found


def _invalid(reason: str) -> ApiError:
    return ApiError(400, f"the body is not valid JSON: {reason}", code="invalid_json")
