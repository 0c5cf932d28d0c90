"""The API key: from an option, a file or the environment, and compared with that of a request."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import MutableMapping
from pathlib import Path

from convo_cli.errors import UsageError

VARIABLE = "CONVO_API_KEY"
MIN_CHARACTERS = 16
"""Length of a key for an address that other machines reach.

Nothing slows down a client that tries keys, so a key must be too long to guess.
"""
_MAX_BYTES = 1024
_HINT = f"export {VARIABLE}=$(openssl rand -hex 24)"


def take_api_key(
    given: str | None, file: Path | None, environ: MutableMapping[str, str] = os.environ
) -> str | None:
    """Return the key of the option, the file or the environment.

    The variable is removed from the environment, because processes that convo starts for foreign
    templates would inherit it. Raises UsageError if both options are given, or if the key cannot be
    sent in a header.
    """
    inherited = environ.pop(VARIABLE, None)
    if given is not None and file is not None:
        raise UsageError("--api-key and --api-key-file: give only one of them")
    if file is not None:
        return _checked(_read(file), f"--api-key-file {file}")
    if given is not None:
        return _checked(given, "--api-key")
    return None if inherited is None else _checked(inherited, VARIABLE)


def require_long(key: str | None, host: str) -> None:
    """Raise UsageError unless there is a key that is long enough for an address like ``host``."""
    if key is None:
        raise UsageError(
            f"--host {host}: other machines can reach this address, so a key is needed", hint=_HINT
        )
    if len(key) < MIN_CHARACTERS:
        raise UsageError(
            f"--host {host}: other machines can reach this address, so the key needs at least "
            f"{MIN_CHARACTERS} characters",
            hint=_HINT,
        )


def is_authorized(header: bytes | None, key: str) -> bool:
    """Return whether an Authorization header contains the key; compares in constant time."""
    scheme, _, sent = (header or b"").partition(b" ")
    is_key = hmac.compare_digest(_digest(sent.strip()), _digest(key.encode()))
    return is_key and scheme.lower() == b"bearer"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _read(file: Path) -> str:
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"--api-key-file {file}: not a regular file")
            return opened.read(_MAX_BYTES + 2).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise UsageError(f"--api-key-file {file}: not UTF-8 text") from None
    except OSError as error:
        raise UsageError(f"--api-key-file {file}: {error.strerror or error}") from None


def _checked(key: str, where: str) -> str:
    try:
        num_bytes = len(key.encode())
    except UnicodeEncodeError:
        raise UsageError(f"{where}: the key is not UTF-8 text") from None
    if not key:
        raise UsageError(f"{where}: the key is empty", hint=_HINT)
    if num_bytes > _MAX_BYTES:
        raise UsageError(f"{where}: the key is longer than {_MAX_BYTES:,} bytes", hint=_HINT)
    if not key.isprintable() or any(char.isspace() for char in key):
        raise UsageError(f"{where}: the key contains a space or a control character", hint=_HINT)
    return key
