"""Which texts of a block may be odd or are not normalised: cheap questions with false alarms, before exact ones.

Whatever `suspicions.may_be_odd` finds is caught here, which tests/laws/test_fast_lane.py holds.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from convo_cli.data.checks.literals import Flags, Places
from convo_cli.data.checks.suspicions import HEADINGS, LONG_REPEAT_CHARACTERS
from convo_cli.data.checks.suspicious_text import CHARACTER_PLACES, MARKUP_PLACES, ODD_TEXTS, SPEAKERS
from convo_cli.data.fingerprint import normalised

_FIXED_TEXTS = frozenset(text.encode() for text in ODD_TEXTS | HEADINGS)
_LONGEST = max(map(len, _FIXED_TEXTS))
# The first four bytes of a text, ASCII letters small: a speaker, or Python's spelling of an array.
_BEGINNINGS = frozenset(name[:4].encode() for name in (*SPEAKERS, "array"))
_SIGNS_AND_DIGITS = b"+-0123456789"
# In plain lines 1 is a quotation mark and 2 a backslash that was escaped.
_ODD_ASCII = b"&<[\2\x7f"
_ODD_PAIRS = b"#_"

_KNOWN, _ODD, _LEAD, _FOLDED = 1, 2, 4, 8


def begin_oddly(block: bytes, starts: Places, ends: Places) -> Flags:
    """Which texts may be a label, a number or a value, or begin with a speaker, or repeat the text before."""
    codes = np.frombuffer(block, np.uint8)
    lengths = ends - starts
    pairs = codes[starts].astype(np.uint16) << 8 | codes[starts + 1]
    is_odd = np.zeros(len(starts), np.bool_)
    is_same = (lengths[1:] == lengths[:-1]) & (lengths[1:] >= LONG_REPEAT_CHARACTERS) & (pairs[1:] == pairs[:-1])
    is_odd[1:] = is_same
    of_any, of_fixed = _pairs()
    may_be = np.flatnonzero(of_any[pairs] | (of_fixed[pairs] & (lengths <= _LONGEST)))
    texts = zip(may_be.tolist(), starts[may_be].tolist(), ends[may_be].tolist(), strict=True)
    is_odd[[index for index, start, end in texts if _begins_oddly(block[start:end])]] = True
    return is_odd


def _begins_oddly(text: bytes) -> bool:
    return (
        text in _FIXED_TEXTS
        or text[:4].lower() in _BEGINNINGS
        or text[:3].lower() == b"bot"
        or text[1:2] == b":"
        or text[:1] in (b"[", b"{")
        or text[:2] in (b"b'", b"b\1")
        or (text[:1] in _SIGNS_AND_DIGITS and text[-1:] in _SIGNS_AND_DIGITS)
    )


@lru_cache(maxsize=1)
def _pairs() -> tuple[Flags, Flags]:
    """The first two bytes of texts for `_begins_oddly` to look at: of any text, and of one that may be fixed."""
    of_any, of_fixed = np.zeros(2**16, np.bool_), np.zeros(2**16, np.bool_)
    for name in (*SPEAKERS, "array", "b'", 'b"', "b\1"):
        for first in (name[0].lower(), name[0].upper()):
            for second in (name[1].lower(), name[1].upper()):
                of_any[ord(first) << 8 | ord(second)] = True
    for char in (*_SIGNS_AND_DIGITS, *b"[{"):
        of_any[char << 8 : char + 1 << 8] = True
    of_any[ord(":") :: 2**8] = True
    for text in _FIXED_TEXTS:
        of_fixed[int.from_bytes(text[:2], "big")] = True
    return of_any, of_fixed


def odd_ascii(texts: bytes) -> Places:
    """Where ASCII stands that only odd texts have."""
    codes = np.frombuffer(texts, np.uint8)
    places = [np.flatnonzero(codes == char) for char in _ODD_ASCII if char in texts]
    for char in _ODD_PAIRS:
        if char in texts:
            places.append(np.flatnonzero((codes[1:] == char) & (codes[:-1] == char)))
    return np.concatenate(places) if places else np.empty(0, np.intp)


class Alphabet:
    """What is known about the characters beyond ASCII that have been met."""

    def __init__(self) -> None:
        self._flags = np.zeros(0x110000, np.uint8)
        self._flags[:128] = _KNOWN

    def odd(self, codes: NDArray[np.uint32]) -> Places:
        """Where characters stand that only odd texts have."""
        flags = self._look_up(codes)
        is_odd = (flags & _ODD) != 0
        # A lead byte of mojibake is an honest letter unless something beyond ASCII follows.
        is_odd[:-1] &= ((flags[:-1] & _LEAD) == 0) | (codes[1:] > 127)
        return np.flatnonzero(is_odd)

    def folded(self, codes: NDArray[np.uint32]) -> Places:
        """Where characters stand that are not as they are in normalised text, or may not be beside others."""
        return np.flatnonzero(self._look_up(codes) & _FOLDED)

    def _look_up(self, codes: NDArray[np.uint32]) -> NDArray[np.uint8]:
        flags = self._flags[codes]
        if not flags.all():
            for code in np.unique(codes[flags == 0]).tolist():
                self._flags[code] = _classify(chr(code))
            flags = self._flags[codes]
        return flags


def _classify(char: str) -> int:
    flags = _KNOWN
    if MARKUP_PLACES.match(char) or CHARACTER_PLACES.match(char + "é"):
        flags |= _ODD
        if not MARKUP_PLACES.match(char) and not CHARACTER_PLACES.match(char + "e"):
            flags |= _LEAD
    if normalised(f"a{char}a") != f"a{char}a" or unicodedata.category(char)[0] == "M" or char in _joining():
        flags |= _FOLDED
    return flags


@lru_cache(maxsize=1)
def _joining() -> frozenset[str]:
    """Characters that may become one with the character before."""
    jamo = map(chr, range(0x1100, 0x1200))
    return frozenset((*jamo, *_second_parts()))


def _second_parts() -> Iterator[str]:
    # No character outside of these planes' parts is composed of two.
    for code in (*range(0xC0, 0x3400), *range(0x10000, 0x20000)):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            yield chr(int(parts[1], 16))
