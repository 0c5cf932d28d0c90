"""Strict decoder of one line of JSON, for training and validation.

msgspec reads the line. It keeps the last of two equal keys and accepts escaped control characters,
so its value is used only if a cheap check of the bytes rules out both. `faults` scans all other
lines.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from convo_cli.data.problems import Problem, ProblemSink
from convo_cli.data.strict_json.faults import MAX_DEPTH, report_faults

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)
"""Exceptions of `read` and `num_keys`."""

_TEXTS = msgspec.json.Decoder(list[str])
_ANYTHING = msgspec.json.Decoder()

# May match valid text (an escaped backslash before an r), but never misses a control
# character or NUL.
_MAYBE_CONTROL = re.compile(rb"\\(?:[bfr]|u00[01])")
# Every key ends in a match; a string that begins with a colon matches too. So there are at least as
# many matches as keys, and as many matches as *different* keys only if no key is repeated.
_MAYBE_KEY = re.compile(rb'"[ \t\r\n]*:')


def decode(raw: bytes, found: ProblemSink) -> Any:
    """Decode one line; report every fault and return `msgspec.UNSET` if it is not strict JSON."""
    value: Any = msgspec.UNSET
    reason = ""
    try:
        value = read(raw)
        if not may_hold_control(raw) and not may_repeat_key(raw, num_keys(value)):
            return value
    except UNREADABLE as error:
        value, reason = msgspec.UNSET, str(error)
    if report_faults(raw, found):
        return msgspec.UNSET
    if value is msgspec.UNSET:
        found(Problem("invalid-json", reason, column=1))
    return value


def read(raw: bytes) -> Any:
    """Decode a line with msgspec, which raises one of `UNREADABLE` if that fails."""
    if raw.startswith(b'["'):
        try:
            return _TEXTS.decode(raw)
        except msgspec.ValidationError:
            pass
    return _ANYTHING.decode(raw)


def may_hold_control(raw: bytes) -> bool:
    """Return whether the line may hold an escaped control character."""
    return _MAYBE_CONTROL.search(raw) is not None


def may_repeat_key(raw: bytes, num_keys: int) -> bool:
    """Return whether a key may be repeated in a line whose value has ``num_keys`` keys."""
    # A colon follows every key, and most texts contain none, so counting colons is usually enough.
    return raw.count(b":") != num_keys and len(_MAYBE_KEY.findall(raw)) != num_keys


def num_keys(value: Any, depth: int = 0) -> int:
    """Count the keys of a value on all levels.

    Raises OverflowError for a number, RecursionError for a depth, that is too large.
    """
    if isinstance(value, (dict, list)):
        if depth == MAX_DEPTH:
            raise RecursionError
        children = value.values() if isinstance(value, dict) else value
        inner = sum(num_keys(child, depth + 1) for child in children if not isinstance(child, str))
        return inner + (len(value) if isinstance(value, dict) else 0)
    if isinstance(value, int):
        float(value)
    return 0
