"""What stands between the texts of a block of lines: the JSON around them, as small numbers.

    ["Hello", "Hi!"]     the line begins with ["  two texts have ", " between them  and "] ends it

The literals of a line, put around any other texts, are a line of the same structure.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.intp]

MAX_LITERALS = 2_000
_MAX_COMMON = 16
_MAX_LENGTH = 2_000
_NEWLINE, _QUOTE, _COLON = b'\n":'
_SPEAKER_KEYS = (b"role", b"from", b"speaker")

# A string, so that no number is sought in it, or a number that every reader can hold.
_STRING_OR_NUMBER = re.compile(
    rb'"[^"]*"?|(?<![\w.+-])-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,2})?(?![\w.+-])'
)
_SPACED_KEY = re.compile(rb'"[ ]+:')


class Strings(NamedTuple):
    """The strings of a block that may differ from line to line: no keys, no names of speakers, none that is empty."""

    codes: NDArray[np.uint8]
    """The block, with a newline in front."""
    opens: Places
    """Where the opening quote of each is."""
    closes: Places
    first: Places  # (lines + 1,)
    """The first string of each line."""
    newlines: Places  # (lines + 1,)


def find_strings(block: bytes) -> Strings | None:
    """The strings of plain lines that begin with a newline; None where a line has a quote without a partner."""
    codes = np.frombuffer(block, np.uint8)
    newlines = np.flatnonzero(codes == _NEWLINE)
    quotes = np.flatnonzero(codes == _QUOTE)
    if (np.searchsorted(quotes, newlines) % 2).any():
        return None
    opens, closes = quotes[0::2], quotes[1::2]
    lengths = closes - opens - 1
    is_key = codes[closes + 1] == _COLON
    is_fixed = is_key | (lengths == 0)
    for key in _SPEAKER_KEYS if is_key.any() else ():
        is_fixed[1:] |= (is_key & (lengths == len(key)) & _holds(block, opens + 1, key))[:-1]
    opens, closes = opens[~is_fixed], closes[~is_fixed]
    return Strings(codes, opens, closes, np.searchsorted(opens, newlines), newlines)


def _holds(block: bytes, places: Places, literal: bytes) -> NDArray[np.bool_]:
    """At which places the literal stands."""
    last = len(block) - len(literal)
    if last < 0:
        return np.zeros(len(places), np.bool_)
    # A view of the block at every offset at which so much can stand.
    views = np.ndarray((last + 1,), f"S{len(literal)}", block, strides=(1,))
    is_there: NDArray[np.bool_] = views[np.minimum(places, last)] == literal
    return is_there


class Literals:
    """Numbers for literals, learnt as they are met; 0 is one that is not to be told apart."""

    def __init__(self) -> None:
        self._known: list[bytes] = [b""]
        self._numbers: dict[bytes, int] = {}
        self._common: list[tuple[bytes, int]] = []

    def signatures(self, block: bytes, strings: Strings) -> list[bytes]:
        """The literals of each line, in order, as one key."""
        ends = np.insert(strings.opens, strings.first, strings.newlines)[1:] + 1
        starts = np.insert(strings.closes, strings.first, strings.newlines)[:-1]
        numbers = self._number(block, starts, ends).tobytes()
        bounds = (2 * (strings.first + np.arange(len(strings.first)))).tolist()
        return [numbers[start:end] for start, end in pairwise(bounds)]

    def of(self, signature: bytes) -> list[bytes] | None:
        """The literals that a signature stands for; None where one of them is not known."""
        numbers = np.frombuffer(signature, np.uint16).tolist()
        literals = [self._known[number] for number in numbers]
        # Of a key with space before its colon it was not seen that it is one.
        is_known = all(numbers) and not any(map(_SPACED_KEY.match, literals))
        return literals if is_known else None

    def _number(self, block: bytes, starts: Places, ends: Places) -> NDArray[np.uint16]:
        numbers = np.zeros(len(starts), np.uint16)
        lengths = ends - starts
        for literal, number in self._common:
            same = np.flatnonzero(lengths == len(literal))
            numbers[same[_holds(block, starts[same], literal)]] = number
        rest = np.flatnonzero(numbers == 0)
        if len(rest):
            literals = [block[start:end] for start, end in zip(starts[rest].tolist(), ends[rest].tolist(), strict=True)]
            numbers[rest] = [self._numbers.get(literal) or self._learn(literal) for literal in literals]
            self._common += [
                (literal, self._numbers[literal])
                for literal, count in Counter(literals).most_common(_MAX_COMMON - len(self._common))
                if count > 20 and literal in self._numbers
            ]
        return numbers

    def _learn(self, literal: bytes) -> int:
        """The number of a literal; those that differ in JSON numbers alone share one."""
        if len(literal) > _MAX_LENGTH:
            return 0
        literal = literal[:1] + _STRING_OR_NUMBER.sub(_zero, literal[1:])
        if literal not in self._numbers and len(self._known) <= MAX_LITERALS:
            self._numbers[literal] = len(self._known)
            self._known.append(literal)
        return self._numbers.get(literal, 0)


def _zero(match: re.Match[bytes]) -> bytes:
    return match.group() if match.group().startswith(b'"') else b"0"
