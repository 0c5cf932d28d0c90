"""Keys of an object that is one turn: its speaker and its text."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

LISTS = ("messages", "conversations", "turns", "conversation", "dialogue", "dialog")
"""Keys whose list is the dialogue, whatever else is on the line."""
SPEAKER_KEYS = ("role", "from", "speaker")
AUTHOR_KEYS = ("author", "sender", "name")
"""Keys of the speaker in a turn without `SPEAKER_KEYS`; beside one of those they are metadata."""
TEXT_KEYS = ("content", "value", "text", "utterance", "parts", "message")
"""Keys of the text; a turn with several of them has the first one."""


@lru_cache(maxsize=4096)
def keys_of_turn(keys: tuple[str, ...]) -> tuple[str | None, str | None]:
    """Return the keys of the speaker and of the text of an object with these keys."""
    speaker = next((key for key in (*SPEAKER_KEYS, *AUTHOR_KEYS) if key in keys), None)
    return speaker, next((key for key in TEXT_KEYS if key in keys), None)


@lru_cache(maxsize=4096)
def name_key(keys: tuple[str, ...]) -> str | None:
    """Return the key whose string decides how an object with these keys is read.

    It is the name of the speaker of a turn, or the type of a part of a text.
    """
    speaker, text = keys_of_turn(keys)
    if speaker is not None:
        return speaker if text is not None else None
    return "type" if "type" in keys and "text" in keys else None


def is_turn(value: Any) -> bool:
    """Return whether the value is an object with a speaker and a text."""
    return isinstance(value, dict) and None not in keys_of_turn(tuple(value))


def is_parts(value: Any) -> bool:
    """Return whether the value is a list of the parts of one text, which have no speakers."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(item, dict)
            and ("type" in item or "text" in item)
            and keys_of_turn(tuple(item))[0] is None
            for item in value
        )
    )
