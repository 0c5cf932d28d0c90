"""Texts under keys that are not read: a warning names each key whose texts are long on average.

Metadata such as ids, hashes and dates is short on average. Identifiers, and texts that a turn
repeats, count as short however long they are.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from convo_cli.data.shapes.table import SHAPES, SYSTEM_KEYS
from convo_cli.wording import counted, quoted

SHORT_TEXT_CHARACTERS = 30
"""Texts with at most this average length are metadata."""

_CONTENT_KEYS = frozenset(
    {
        "tool_calls",
        "function_call",
        "tools",
        "functions",
        "image",
        "images",
        "audio",
        "audios",
        "video",
        "videos",
    }
)
"""Keys that hold a part of the conversation, even if their texts are short."""
_KEYS_OF_SHAPES = frozenset({key for shape in SHAPES.values() for key in shape.keys}) | {
    *SYSTEM_KEYS,
    *("content", "text", "utterance"),
}
"""Keys that hold a text or turns in some shape; beside another shape they may repeat its texts."""
MAX_KEYS = 100
"""Most keys counted separately in one file; all others are counted together."""
OTHER_KEYS = "(other keys)"
_MAX_KEY_LENGTH = 40
_EMPTY_CHARACTERS = 2  # [] or {} written as a text
_IDENTIFIER = re.compile(r"(?=[^0-9]{0,79}[0-9])[0-9A-Za-z_.:+-]{1,80}")


class UnreadItem(NamedTuple):
    """A key that is not read, with its path and value."""

    path: str
    key: str
    value: Any


class UnreadTexts(msgspec.Struct):
    """Number and total length of the texts under one key."""

    num_texts: int = 0
    num_characters: int = 0

    def add(self, num_texts: int, num_characters: int) -> None:
        self.num_texts += num_texts
        self.num_characters += num_characters

    def is_content(self, key: str) -> bool:
        """Return whether the texts are so long that they are probably meant to be read."""
        is_part = key in _CONTENT_KEYS or key in _KEYS_OF_SHAPES or "history" in key.lower()
        limit = _EMPTY_CHARACTERS if is_part else SHORT_TEXT_CHARACTERS
        return self.num_characters > limit * self.num_texts

    def describe(self, key: str) -> str:
        """Return the message of the warning."""
        mean = f"{self.num_characters / max(1, self.num_texts):,.0f} characters"
        texts = f"{counted(self.num_texts, 'text')} of {mean}"
        if self.num_texts > 1:
            texts += " on average"
        return f"the key {quoted(key)} is ignored ({texts})"


def texts_in(value: Any) -> Iterator[str]:
    """Yield every non-empty text in a value, at any depth."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, (list, dict)):
        for item in value if isinstance(value, list) else value.values():
            yield from texts_in(item)


def counted_length(text: str, turns: Collection[str], key: str = "") -> int:
    """Return the length that counts for an unread text under ``key`` beside these turns."""
    if key in _KEYS_OF_SHAPES and text.strip() in turns:
        return 0
    if len(text) <= SHORT_TEXT_CHARACTERS:
        return len(text)
    if _is_identifier(text) or text.strip() in turns:
        return SHORT_TEXT_CHARACTERS
    return len(text)


def _is_identifier(text: str) -> bool:
    """Return whether the text is one word with a digit: an id, a hash, a date."""
    return _IDENTIFIER.fullmatch(text) is not None


def measured(items: Iterable[UnreadItem], turns: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """Yield the key of each item, and the number and the counted length of its texts."""
    of_turns = frozenset(turns)
    for _, key, value in items:
        lengths = [counted_length(text, of_turns, key) for text in texts_in(value)]
        if lengths:
            yield key, len(lengths), sum(lengths)


def known_name(key: str, known: Collection[str]) -> str:
    """Return the name under which a key is counted; names are few and short to bound the memory."""
    name = key[:_MAX_KEY_LENGTH]
    return name if name in known or len(known) < MAX_KEYS else OTHER_KEYS
