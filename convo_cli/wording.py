"""Wording of messages: numbers with their nouns, and quoted text."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which is given in the singular: 1 step, 2 steps."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def quoted(text: str, limit: int = 40) -> str:
    """Quote a text for a message: shortened, and with escapes for unprintable characters."""
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return '"' + "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown) + '"'
