"""Texts that a line holds in keys that are not read: a key full of them is named in a warning, so that nothing is lost.

A file may have ids, hashes and dates by the million, so a text counts by its length, and one that only looks long (an
identifier, or what a turn says as well) as a short one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from convo_cli.data.problems import quoted

SHORT_TEXT_CHARACTERS = 30
"""Texts of this length on average are metadata."""

_CONTENT_KEYS = frozenset(
    {"tool_calls", "function_call", "tools", "functions", "image", "images", "audio", "audios", "video", "videos"}
)
"""Keys that hold what was said or seen, however short it is."""
MAX_KEYS = 100
"""Keys told apart in one file."""
OTHER_KEYS = "(other keys)"
_MAX_KEY_LENGTH = 40
_EMPTY_CHARACTERS = 2  # [] or {} written as a text
_IDENTIFIER = re.compile(r"(?=[^0-9]*[0-9])[0-9A-Za-z_.:+-]{1,80}")


class UnreadItem(NamedTuple):
    """One key that the reader left alone."""

    path: str
    key: str
    value: Any


class UnreadTexts(msgspec.Struct):
    """What the values of one key add up to."""

    num_texts: int = 0
    num_characters: int = 0

    def add(self, num_texts: int, num_characters: int) -> None:
        self.num_texts += num_texts
        self.num_characters += num_characters

    def is_content(self, key: str) -> bool:
        """Whether there is so much text that it is probably meant to be read."""
        limit = _EMPTY_CHARACTERS if key in _CONTENT_KEYS else SHORT_TEXT_CHARACTERS
        return self.num_characters > limit * self.num_texts

    def describe(self, key: str) -> str:
        """What a warning says about them."""
        many = f"{self.num_texts:,} text" if self.num_texts == 1 else f"{self.num_texts:,} texts"
        mean = self.num_characters / max(1, self.num_texts)
        return f"the key {quoted(key)} is not read ({many} of {mean:,.0f} characters on average)"


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text in a value, at any depth, that is not empty."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, (list, dict)):
        for item in value if isinstance(value, list) else value.values():
            yield from texts_in(item)


def counted_length(text: str, turns: Iterable[str]) -> int:
    """The length of an unread text on a line with these turns, as it counts."""
    if len(text) <= SHORT_TEXT_CHARACTERS:
        return len(text)
    if _IDENTIFIER.fullmatch(text) or text.strip() in turns:
        return SHORT_TEXT_CHARACTERS
    return len(text)


def measured(items: Iterable[UnreadItem], turns: Collection[str]) -> Iterator[tuple[str, int, int]]:
    """Yield the key of each item, and the number and the counted length of its texts."""
    for _, key, value in items:
        lengths = [counted_length(text, turns) for text in texts_in(value)]
        if lengths:
            yield key, len(lengths), sum(lengths)


def known_name(key: str, known: Collection[str]) -> str:
    """The name that a key is counted under, so that no data can fill the memory with keys."""
    name = key[:_MAX_KEY_LENGTH]
    return name if name in known or len(known) < MAX_KEYS else OTHER_KEYS
