"""Counts of the characters of many texts at once, and the share of each writing system."""

from __future__ import annotations

import unicodedata
from collections import Counter

import numpy as np
from numpy.typing import NDArray

_ASCII = bytes(range(128))
_SCRIPTS = {
    "HIRAGANA": "Kana",
    "KATAKANA": "Kana",
    "KATAKANA-HIRAGANA": "Kana",
    "CJK": "Han",
    "IDEOGRAPHIC": "Han",
}


def count_ascii_letters(text: str) -> int:
    codes = np.frombuffer(text.encode(), np.uint8)
    return int(np.count_nonzero((codes | 0x20) - np.uint8(ord("a")) < 26))


def count_beyond_ascii(text: str) -> NDArray[np.intp]:
    """Return how often each code point beyond ASCII occurs, up to the largest one that does."""
    if text.isascii():
        return np.empty(0, np.intp)
    # Most characters are ASCII; deleting their bytes is faster than any operation per character.
    beyond = text.encode().translate(None, _ASCII).decode()
    return np.bincount(np.frombuffer(beyond.encode("utf-32-le"), "<u4"))


def scripts(num_ascii_letters: int, num_beyond_ascii: NDArray[np.int64]) -> dict[str, float]:
    """Return the share of each writing system in the letters, the largest first.

    ``num_beyond_ascii`` is indexed by code points.
    """
    counts: Counter[str] = Counter(Latin=num_ascii_letters)
    codes = np.flatnonzero(num_beyond_ascii)
    for code, count in zip(codes.tolist(), num_beyond_ascii[codes].tolist(), strict=True):
        if chr(code).isalpha():
            counts[_script(chr(code))] += count
    total = counts.total()
    by_share = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {script: count / total for script, count in by_share if count}


def _script(letter: str) -> str:
    """Return the script of a letter by its Unicode name, such as LATIN SMALL LETTER A."""
    words = unicodedata.name(letter, "OTHER").split()
    first = words[1] if words[0] in ("FULLWIDTH", "HALFWIDTH") and len(words) > 1 else words[0]
    return _SCRIPTS.get(first, first.capitalize())
