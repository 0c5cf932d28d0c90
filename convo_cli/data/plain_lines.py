"""Lines of JSON without escapes: what stands between two quotes is the text, byte for byte.

`"` and backslash, newline and tab that were escaped become the control characters 1 to 4, which no strict JSON holds.
"""

from __future__ import annotations

import re

import numpy as np

_MARKS = b"\1\2\3\4"
SPACES = b" \3\4"
"""White space of ASCII as it stands in plain lines."""

_ESCAPE = re.compile(rb'\\["\\/nt]')
_MEANT = {rb"\"": b"\1", b"\\\\": b"\2", rb"\n": b"\3", rb"\t": b"\4", rb"\/": b"/"}
# Control characters, quotes and backslashes by number are left to the exact reader.
_OTHER_ESCAPE = re.compile(rb"\\(?!u(?!00(?:[01]|22|5[cC]))[0-9a-fA-F]{4})")
_RESTORED = bytes.maketrans(b"\1\2\3\4", b'"\\\n\t')
_FOLDED = bytes.maketrans(b"\1\2\3\4ABCDEFGHIJKLMNOPQRSTUVWXYZ", b'"\\  abcdefghijklmnopqrstuvwxyz')


def plain(lines: bytes) -> bytes:
    """The same lines without escapes; raises `ValueError` where one of them is not UTF-8 or needs the exact reader."""
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
        raise ValueError("an escape for the exact reader, or outside of a text")
    if not lines.isascii():
        lines = lines.decode().encode("raw_unicode_escape")
    # Through UTF-16, because escapes spell what lies beyond U+FFFF as two halves.
    halves = lines.decode("raw_unicode_escape").encode("utf-16-le", "surrogatepass")
    return halves.decode("utf-16-le").encode()
