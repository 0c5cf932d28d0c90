"""When two dialogues count as the same: equal words, whatever their case, width and white space, whoever speaks.

The one definition: validation finds duplicates and leaks by it, training the validation dialogues that it has seen.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

from convo_cli.data.dialogue import SEPARATOR, Turn


def fingerprint(turns: Iterable[Turn]) -> int:
    """64 bits that equal dialogues share, in every process."""
    form = normal_form(turn.text for turn in turns)
    return int.from_bytes(hashlib.blake2b(form, digest_size=8).digest(), "little")


def normal_form(texts: Iterable[str]) -> bytes:
    """What equal dialogues have in common, given their texts: the same bytes for all of them, and for no other."""
    return normalised(SEPARATOR.join(texts)).encode()


def normalised(text: str) -> str:
    """The text with one form of each character and single spaces."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split())
