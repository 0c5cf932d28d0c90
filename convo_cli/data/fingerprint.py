"""When two dialogues count as the same: equal words, whatever their case, width and white space, whoever speaks.

The one definition: validation finds duplicates and leaks by it, training the validation dialogues that it has seen.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby

from convo_cli.data.dialogue import SEPARATOR, Turn

_LONG_RUN = 32  # marks on one letter; words have up to four


def fingerprint(turns: Iterable[Turn]) -> int:
    """64 bits that equal dialogues share, in every process."""
    form = normal_form(turn.text for turn in turns)
    return int.from_bytes(hashlib.blake2b(form, digest_size=8).digest(), "little")


def normal_form(texts: Iterable[str]) -> bytes:
    """What equal dialogues have in common, given their texts: the same bytes for all of them, and for no other."""
    return normalised(SEPARATOR.join(texts)).encode()


def normalised(text: str) -> str:
    """The text with one form of each character and single spaces."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", _in_order(text)).casefold()
    return " ".join(folded.split())


def _in_order(text: str) -> str:
    """Return an equivalent text in which long runs of marks are in canonical order.

    Python sorts them by insertion, in quadratic time: a minute for 500 kB of two alternating marks.
    """
    if not any(map(_is_mark, text[::_LONG_RUN])):
        return text
    runs = ((is_mark, "".join(run)) for is_mark, run in groupby(text, _is_mark))
    return "".join(_ordered(run) if is_mark and len(run) >= _LONG_RUN else run for is_mark, run in runs)


def _ordered(marks: str) -> str:
    return "".join(sorted("".join(map(_decomposed, marks)), key=unicodedata.combining))


@lru_cache(maxsize=4096)
def _is_mark(char: str) -> bool:
    """Return whether normalisation can move the character before other marks."""
    return char > "\u02ff" and unicodedata.combining(_decomposed(char)[0]) != 0


def _decomposed(char: str) -> str:
    return unicodedata.normalize("NFKD", char)
