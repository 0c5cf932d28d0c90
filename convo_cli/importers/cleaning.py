"""Removal of control characters and invisible characters from imported texts."""

from __future__ import annotations

import re
from typing import Any

from convo_cli.importers.messages import Counts

# Newlines and tabs stay; joiners stay, because emoji and the scripts of Persian and India need
# them. Marks of direction stay out, because exports put them around names and dates.
_REMOVED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_BREAK = re.compile("\r\n|[\r\u2028\u2029]")


def cleaned(text: str, counts: Counts) -> str:
    """Return a text with newlines as line ends and without such characters, and count them."""
    if text.isascii() and text.isprintable():
        return text
    text, number = _REMOVED.subn("", _BREAK.sub("\n", text))
    counts.num_removed_characters += number
    return text


def cleaned_value(value: Any, counts: Counts) -> Any:
    """Return a JSON value whose strings, but not its keys, are cleaned."""
    if isinstance(value, str):
        return cleaned(value, counts)
    if isinstance(value, list):
        return [cleaned_value(item, counts) for item in value]
    if isinstance(value, dict):
        return {key: cleaned_value(item, counts) for key, item in value.items()}
    return value
