"""Fingerprints of dialogues, which ignore case, width, white space and speakers.

Validation uses them to find duplicates and leaks, and training to find validation dialogues in the
training data.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convo_cli.data.dialogue import SEPARATOR, Turn

_FOLDED_ASCII = bytes(range(256)).lower().replace(b"\n", b" ").replace(b"\t", b" ")
_BETWEEN_DIALOGUES = "\1"
"""No text can contain it."""
_JOINING_JAMO = range(0x1160, 0x1200)
"""Korean vowels and final consonants, which combine with the character before, like marks."""
_SELECTORS = range(0xFE00, 0xFE10)
"""Marks that combine with nothing; every second emoji has one."""
_MAX_FOLDED = 64
"""Most different characters to replace in a whole block; Japanese text has about 20."""
_LONG_RUN = 32
"""Length of a long run of marks; the letters of words have up to four."""
_COMPARED = 1 << 13  # values looked up at once


def fingerprint(turns: Iterable[Turn]) -> int:
    """Return 64 bits that are equal for equal dialogues, in every process."""
    return _hash(normalised(SEPARATOR.join(turn.content for turn in turns)).encode())


def fingerprints(dialogues: Sequence[str], characters: str) -> list[int]:
    """Return the `fingerprint` of each dialogue, faster than one by one.

    A dialogue is its stripped texts, joined by separators. ``characters`` holds the characters
    beyond ASCII in them that `fold` changes.
    """
    folds = {char: form for char in characters if (form := fold(char)) != char}
    if len(folds) > _MAX_FOLDED:
        return [_hash(normalised(dialogue).encode()) for dialogue in dialogues]
    together = _BETWEEN_DIALOGUES.join(dialogues)
    for char, form in folds.items():
        together = together.replace(char, form or char)
    forms = _single_spaced(together.encode().translate(_FOLDED_ASCII)).split(
        _BETWEEN_DIALOGUES.encode()
    )
    if unknown := [char for char, form in folds.items() if form is None]:
        for index, dialogue in enumerate(dialogues):
            if any(map(dialogue.__contains__, unknown)):
                forms[index] = normalised(dialogue).encode()
    return list(map(_hash, forms[: len(dialogues)]))


def is_among(values: NDArray[Any], known: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which values are among the ``known`` ones, which ascend.

    Unlike `numpy.isin`, it needs one byte a value.
    """
    found = np.zeros(len(values), np.bool_)
    for begin in range(0, len(values) if len(known) else 0, _COMPARED):
        block = values[begin : begin + _COMPARED]
        places = np.minimum(np.searchsorted(known, block), len(known) - 1)
        found[begin : begin + _COMPARED] = known[places] == block
    return found


def find_repeats(
    fingerprints: NDArray[np.uint64], most: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the places of all repeats, ascending, and what the first ``most`` of them repeat.

    The latter are places too. Unlike `numpy.unique` with its inverse, it needs 17 bytes a
    fingerprint.
    """
    order = np.argsort(fingerprints, kind="stable")
    ascending = fingerprints[order]
    repeats = np.sort(order[1:][ascending[1:] == ascending[:-1]])
    return repeats, order[np.searchsorted(ascending, fingerprints[repeats[:most]])]


def normalised(text: str) -> str:
    """Return the text with one form of each character and single spaces."""
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", _in_order(text)).casefold().split())


def _single_spaced(text: bytes) -> bytes:
    codes = np.frombuffer(text, np.uint8)
    is_space = codes == ord(" ")
    is_second = is_space[1:] & is_space[:-1]
    return codes[np.append(True, ~is_second)].tobytes() if is_second.any() else text


def _hash(form: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(form, digest_size=8).digest(), "little")


@lru_cache(maxsize=2**16)
def fold(char: str) -> str | None:
    """Return the normalised form of a character; None if its neighbours affect the form."""
    first = _decomposed(char)[0]
    is_joining = unicodedata.category(first)[0] == "M" and ord(first) not in _SELECTORS
    if is_joining or ord(first) in _JOINING_JAMO:
        return None
    form = unicodedata.normalize("NFKC", char).casefold()
    if form.isspace():
        return " "
    return form if normalised(form) == form else None


def _in_order(text: str) -> str:
    """Return an equivalent text in which long runs of marks are in canonical order.

    Python sorts them by insertion, in quadratic time: a minute for 500 kB of two alternating marks.
    """
    if not any(map(_is_mark, text[::_LONG_RUN])):
        return text
    runs = ((is_mark, "".join(run)) for is_mark, run in groupby(text, _is_mark))
    return "".join(
        _ordered(run) if is_mark and len(run) >= _LONG_RUN else run for is_mark, run in runs
    )


def _ordered(marks: str) -> str:
    return "".join(sorted("".join(map(_decomposed, marks)), key=unicodedata.combining))


@lru_cache(maxsize=4096)
def _is_mark(char: str) -> bool:
    """Return whether normalisation can move the character before other marks."""
    return char > "\u02ff" and unicodedata.combining(_decomposed(char)[0]) != 0


def _decomposed(char: str) -> str:
    return unicodedata.normalize("NFKD", char)
