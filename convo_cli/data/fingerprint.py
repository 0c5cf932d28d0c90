"""When two dialogues count as the same: equal words, whatever their case, width and white space, whoever speaks."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

from convo_cli.data.dialogue import Turn

_BETWEEN_TURNS = "\0"  # in no text, so it keeps ["a b"] and ["a", "b"] apart


def fingerprint(turns: Iterable[Turn]) -> int:
    """64 bits that equal dialogues share."""
    folded = normalised(_BETWEEN_TURNS.join(turn.text for turn in turns))
    return int.from_bytes(hashlib.blake2b(folded.encode(), digest_size=8).digest(), "little")


def normalised(text: str) -> str:
    """The text with one form of each character and single spaces."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split())
