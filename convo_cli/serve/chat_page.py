"""The chat page at `/` of the server: one file, and the headers under which a browser shows it.

The policy lets the browser run the page's own script and style, known by their hashes, and connect
to this server only. So a reply cannot load, run or send anything, even if the page has a bug.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class ChatPage:
    """The bytes of the page and its HTTP headers."""

    content: bytes
    headers: dict[str, str]


@functools.cache
def chat_page() -> ChatPage:
    """Read the page and compute its headers, once in a process."""
    content = files("convo_cli.serve").joinpath("page.html").read_bytes()
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": _policy(content.decode()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-cache",  # another version of convo at this address has another page
    }
    return ChatPage(content, headers)


def _policy(page: str) -> str:
    """Return the Content-Security-Policy of a page."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash_of('script', page)}",
            f"style-src {_hash_of('style', page)}",
            "img-src data:",  # the empty icon, which saves a request for /favicon.ico
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",  # no text becomes markup or code, by any function
            "trusted-types 'none'",
        )
    )


def _hash_of(element: str, page: str) -> str:
    """Return the hash of the content of the page's only script or style."""
    content = page.partition(f"<{element}>")[2].partition(f"</{element}>")[0]
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
