"""Wording of messages: numbers with their nouns, names on one line, and quoted text."""

from __future__ import annotations

import re

_BREAK = re.compile(r"[\t-\r]")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which is given in the singular: 1 step, 2 steps."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shared_device(device: str, num_processes: int) -> str:
    """Return the device of a run in words; that of several processes has no number."""
    return f"{device.partition(':')[0]}, {num_processes} processes" if num_processes > 1 else device


def on_one_line(text: str) -> str:
    """Replace line breaks and tabs by escapes: a file name may contain what looks like a hint."""
    return _BREAK.sub(lambda found: ascii(found[0])[1:-1], text)


def quoted(text: str, limit: int = 40) -> str:
    """Quote a text for a message: shortened, and with escapes for unprintable characters."""
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return '"' + "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown) + '"'
