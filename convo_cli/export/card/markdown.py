"""Foreign texts in a model card and in notices, shown as they are."""

from __future__ import annotations

import re

_LONGEST = 80  # characters of a foreign text


def visible(text: str) -> str:
    """Return one line of bounded length, with escapes for control and invisible characters."""
    shown = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in shown)


def as_markdown(text: str) -> str:
    """Escape a text, so that Markdown and HTML show it as it is."""
    return re.sub(r"([!-,./:-@\[-`{-~])", r"\\\1", visible(text))


def as_code(text: str) -> str:
    """Return a text as a code span; the fence is longer than any run of backquotes in it."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if text[:1] in ("`", " ") or text[-1:] in ("`", " ") else ""
    return f"{fence}{space}{visible(text)}{space}{fence}"
