"""The characters of many texts at once: which of them are beyond ASCII, and how often."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ASCII = bytes(range(128))


def count_ascii_letters(text: str) -> int:
    codes = np.frombuffer(text.encode(), np.uint8)
    return int(np.count_nonzero((codes | 0x20) - np.uint8(ord("a")) < 26))


def count_beyond_ascii(text: str) -> NDArray[np.intp]:
    """How often each code point beyond ASCII occurs, up to the largest one that does."""
    if text.isascii():
        return np.empty(0, np.intp)
    # Most characters are ASCII, and deleting those from the bytes is faster than anything that is done with each.
    beyond = text.encode().translate(None, _ASCII).decode()
    return np.bincount(np.frombuffer(beyond.encode("utf-32-le"), "<u4"))
