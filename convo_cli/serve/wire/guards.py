"""Checks of every request before its body is read, and headers that protect a browser.

Any page in a browser can send requests to this machine. So the server answers only under its own
names, because a page can point its own name at 127.0.0.1, and only to its own page.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from convo_cli.serve.api_keys import is_authorized
from convo_cli.serve.wire.bodies import MAX_BODY_BYTES, too_long
from convo_cli.serve.wire.objects import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Host names that are always accepted."""
OPEN_PATHS = frozenset({"/", "/health"})
"""Paths that need no key: the page, which asks the user for it, and the health check."""
_MAX_HEADER_BYTES = 16 * 2**10
_MAX_PATH_BYTES = 2048
_HOST = re.compile(rb"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::([0-9]{1,5}))?")
_JSON = re.compile(rb'application/json[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?', re.IGNORECASE)
_SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Headers of every response that does not set them itself."""
_OWN_SITE = (b"same-origin", b"none")


class SafeHeaders:
    """Middleware that adds headers which keep a browser from misusing a response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                known = {name.lower() for name, _ in headers}
                added = [pair for pair in _SAFE if pair[0] not in known]
                message = {**message, "headers": [*headers, *added]}
            await send(message)

        await self._app(scope, receive, safe)


class Guards:
    """Middleware that refuses requests by their headers, with an ApiError."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str],
        api_key: str | None,
    ) -> None:
        """Accept the names in ``hosts``, beside those of this machine."""
        self._app = app
        self._given = frozenset(host.lower() for host in hosts)
        self._api_key = api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        _require_bounded(scope, headers)
        host = self._require_host(scope, _one(headers, b"host"))
        self._require_origin(scope, headers, host)
        if scope["path"] not in OPEN_PATHS:
            self._require_key(_one(headers, b"authorization"))
        _require_form(scope, headers)
        await self._app(scope, receive, send)

    def _require_key(self, sent: bytes | None) -> None:
        if self._api_key is not None and not is_authorized(sent, self._api_key):
            message = "this server needs its API key in the header Authorization: Bearer KEY"
            raise ApiError(401, message, code="invalid_api_key")

    def _require_host(self, scope: Scope, value: bytes | None) -> bytes:
        """Return the Host header; 421 unless it is a name of this server, with any port.

        The address to which the connection came is one, because it belongs to no other site. A
        forwarded port has another number than the server's own.
        """
        found = _HOST.fullmatch((value or b"").lower())
        if found is not None:
            name = found[1].decode()
            if name in LOOPBACK_HOSTS | self._given or _is_own_address(scope, name):
                return found[0]
        message = "the Host header is not a name of this server; --allow-host adds one"
        raise ApiError(421, message, code="unknown_host")

    def _require_origin(
        self, scope: Scope, headers: list[tuple[bytes, bytes]], host: bytes
    ) -> None:
        """Refuse a request of another site's page with 403; programs send no Origin."""
        origins = [value.lower() for name, value in headers if name == b"origin"]
        own = {b"http://" + host}
        if host.decode().rpartition(":")[0] in self._given or host.decode() in self._given:
            own.add(b"https://" + host)  # behind a proxy that adds TLS
        site = _one(headers, b"sec-fetch-site")
        # A link of another site may lead to the page.
        is_foreign = site is not None and site not in _OWN_SITE and scope["path"] != "/"
        if any(origin not in own for origin in origins) or len(origins) > 1 or is_foreign:
            message = "only the page of this server may send requests from a browser"
            raise ApiError(403, message, code="foreign_origin")


def _is_own_address(scope: Scope, name: str) -> bool:
    address = (scope.get("server") or ("",))[0]
    try:
        return ipaddress.ip_address(name.strip("[]")) == ipaddress.ip_address(address)
    except ValueError:
        return False


def is_host_name(name: str) -> bool:
    """Return whether this can be a name in a Host header, without a port."""
    found = _HOST.fullmatch(name.lower().encode("ascii", "replace"))
    return found is not None and found[2] is None


def _one(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the value of a header; None if it is missing or occurs twice."""
    values = [value for key, value in headers if key == name]
    return values[0] if len(values) == 1 else None


def _require_bounded(scope: Scope, headers: list[tuple[bytes, bytes]]) -> None:
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > _MAX_PATH_BYTES:
        raise ApiError(414, "the path is too long", code="path_too_long")
    if sum(len(name) + len(value) + 4 for name, value in headers) > _MAX_HEADER_BYTES:
        raise ApiError(431, "the headers are too long", code="headers_too_large")


def _require_form(scope: Scope, headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse a body that is not JSON, that is compressed or too long, or that nothing reads."""
    length = _one(headers, b"content-length") or b"0"
    if length.isdigit() and int(length[:20]) > MAX_BODY_BYTES:
        raise too_long()
    has_body = int(length[:20]) > 0 if length.isdigit() else True
    has_body |= any(name == b"transfer-encoding" for name, _ in headers)
    if scope["method"] != "POST":
        if has_body:
            raise ApiError(400, "only a POST request has a body", code="unexpected_body")
        return
    if _JSON.fullmatch(_one(headers, b"content-type") or b"") is None:
        message = "the body must be JSON: Content-Type: application/json"
        raise ApiError(415, message, code="unsupported_media_type")
    if (_one(headers, b"content-encoding") or b"identity").lower() != b"identity":
        raise ApiError(415, "the body must not be compressed", code="unsupported_media_type")
