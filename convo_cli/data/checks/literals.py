"""A block of lines taken apart into its texts and the JSON between them, the literals: the fast lane's first step.

    ["Hello", "Hi!"]     the line begins with ["  two texts have ", " between them  and "] ends it

Each literal gets a number; the numbers of a line are its signature, and lines of one signature differ only in strings
and numbers. Before that, escapes are resolved, so that what stands between two quotes is the text, byte for byte: in
these plain lines `"`, backslash, newline and tab that were escaped are the control characters 1 to 4, which no strict
JSON holds.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convo_cli.data.shapes.known_keys import SPEAKER_KEYS, TRAIN_KEYS

Places = NDArray[np.intp]
Flags = NDArray[np.bool_]

_MARKS = b"\1\2\3\4"
SPACES = b" \3\4"
"""White space of ASCII as it stands in plain lines."""

_ESCAPE = re.compile(rb'\\["\\/nt]')
_MEANT = {rb"\"": b"\1", b"\\\\": b"\2", rb"\n": b"\3", rb"\t": b"\4", rb"\/": b"/"}
# Control characters, quotes and backslashes by number are left to the slow lane.
_OTHER_ESCAPE = re.compile(rb"\\(?!u(?!00(?:[01]|22|5[cC]))[0-9a-fA-F]{4})")
_RESTORED = bytes.maketrans(b"\1\2\3\4", b'"\\\n\t')
_FOLDED = bytes.maketrans(b"\1\2\3\4ABCDEFGHIJKLMNOPQRSTUVWXYZ", b'"\\  abcdefghijklmnopqrstuvwxyz')

_MAX_LITERALS = 2_000
_MAX_COMMON = 16
_MAX_LENGTH = 2_000
_NEWLINE, _QUOTE, _COLON = b'\n":'
_SPEAKER_KEYS = tuple(key.encode() for key in SPEAKER_KEYS)

# A string, so that no number is sought in it, or a number that every reader can hold. The number of a key that says
# what is trained on belongs to the string: lines that differ in it are not alike.
_STRING_OR_NUMBER = re.compile(
    rb'"(?:%s)":[^",\[\]{}]*|"[^"]*"?|' % b"|".join(key.encode() for key in TRAIN_KEYS)
    + rb"(?<![\w.+-])-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,2})?(?![\w.+-])"
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


def take_apart(data: bytes) -> tuple[bytes, Strings, Places]:
    """A newline and the lines without escapes, their strings, and which lines they are: faulty ones are left out."""
    try:
        block = b"\n" + plain(data)
        if (strings := find_strings(block)) is not None:
            return block, strings, np.arange(len(strings.newlines) - 1)
    except ValueError:
        pass
    lines, kept = [b"\n"], []
    for index, line in enumerate(data.split(b"\n")[:-1]):
        try:
            line = plain(line + b"\n")
        except ValueError:
            continue
        if line.count(b'"') % 2 == 0:
            lines.append(line)
            kept.append(index)
    block = b"".join(lines)
    strings = find_strings(block)
    assert strings is not None, "each line has an even number of quotes"
    return block, strings, np.array(kept, np.intp)


def plain(lines: bytes) -> bytes:
    """The same lines without escapes; raises `ValueError` where one of them is not UTF-8 or is for the slow lane."""
    codes = np.frombuffer(lines, np.uint8)
    if np.count_nonzero(codes < ord(" ")) != np.count_nonzero(codes == ord("\n")):
        raise ValueError("a control character inside a line")
    if b"\\" in lines:
        lines = _ESCAPE.sub(lambda match: _MEANT[match.group()], lines)
        if b"\\" in lines:
            lines = _without_numbers(lines)
    if not lines.isascii():
        lines.decode()
    return lines


def restore(text: bytes) -> bytes:
    """The text as a turn holds it."""
    return text.translate(_RESTORED)


def fold(text: bytes) -> bytes:
    """The text restored, with small ASCII letters and single spaces for ASCII white space."""
    text = text.translate(_FOLDED) if any(mark in text for mark in _MARKS) else text.lower()
    codes = np.frombuffer(text, np.uint8)
    is_space = codes == ord(" ")
    is_second = is_space[1:] & is_space[:-1]
    if is_second.any():
        text = codes[np.append([True], ~is_second)].tobytes()
    return text


def _without_numbers(lines: bytes) -> bytes:
    """Resolve escapes of a character by its number."""
    codes = np.frombuffer(lines, np.uint8)
    num_quotes_before = np.searchsorted(np.flatnonzero(codes == ord('"')), np.flatnonzero(codes == ord("\\")))
    if _OTHER_ESCAPE.search(lines) or not (num_quotes_before % 2).all():
        raise ValueError("an escape for the slow lane, or outside of a text")
    if not lines.isascii():
        lines = lines.decode().encode("raw_unicode_escape")
    # Through UTF-16, because escapes spell what lies beyond U+FFFF as two halves.
    halves = lines.decode("raw_unicode_escape").encode("utf-16-le", "surrogatepass")
    return halves.decode("utf-16-le").encode()


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


def _holds(block: bytes, places: Places, literal: bytes) -> Flags:
    """At which places the literal stands."""
    last = len(block) - len(literal)
    if last < 0:
        return np.zeros(len(places), np.bool_)
    # A view of the block at every offset at which so much can stand.
    views = np.ndarray((last + 1,), f"S{len(literal)}", block, strides=(1,))
    is_there: Flags = views[np.minimum(places, last)] == literal
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
        if literal not in self._numbers and len(self._known) <= _MAX_LITERALS:
            self._numbers[literal] = len(self._known)
            self._known.append(literal)
        return self._numbers.get(literal, 0)


def _zero(match: re.Match[bytes]) -> bytes:
    return match.group() if match.group().startswith(b'"') else b"0"
