"""The texts of a block's good lines, side by side in one array: asked what is odd, measured and hashed all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convo_cli.data.checks.literals import SPACES, Flags, Places, fold, restore
from convo_cli.data.checks.sieve import Alphabet, odd_ascii
from convo_cli.data.fingerprint import normalised

_MAX_SPACES = 8
_NEWLINE = ord("\n")
_IS_SPACE = np.isin(np.arange(256), np.frombuffer(SPACES, np.uint8))
# White space beyond ASCII: as three bytes of UTF-8, and as two.
_WIDE_SPACES = np.array(
    [int.from_bytes(char.encode(), "big") for char in map(chr, range(0x800, 0x3001)) if char.isspace()]
)
_NARROW_SPACES = np.array([0xC285, 0xC2A0])
_BEGINS_SPACE = np.isin(np.arange(256), np.append(_WIDE_SPACES >> 16, _NARROW_SPACES >> 8))
_ENDS_SPACE = np.isin(np.arange(256), np.append(_WIDE_SPACES & 0xFF, _NARROW_SPACES & 0xFF))


class TextPlaces(NamedTuple):
    """Where texts are in a block, and the line of each."""

    starts: Places
    ends: Places
    lines: Places


@dataclass(frozen=True, slots=True)
class Measures:
    """What the texts of some lines add up to."""

    num_characters: Sequence[int] = ()
    """Of each line."""
    hashes: Sequence[int] = ()
    """Of each line, of the normal form of its texts."""
    num_ascii_letters: int = 0
    num_beyond_ascii: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    """How often each code point beyond ASCII is there."""


class FlatTexts:
    """The texts of the good lines side by side: NUL between texts, a newline after each line."""

    def __init__(self, codes: NDArray[np.uint8], texts: TextPlaces, is_good: Flags) -> None:
        starts, ends, lines = texts
        if not is_good.all():
            is_kept = is_good[lines]
            starts, ends, lines = starts[is_kept], ends[is_kept], lines[is_kept]
        is_last = np.ones(len(lines), np.bool_)
        is_last[:-1] = lines[1:] != lines[:-1]
        ended = codes.copy()
        ended[ends] = is_last * np.uint8(_NEWLINE)
        lengths = np.empty(2 * len(starts), np.intp)
        lengths[1::2] = ends + 1 - starts
        lengths[0::2] = starts
        lengths[2::2] -= ends[:-1] + 1
        is_text = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        self.num_texts = np.diff(np.flatnonzero(is_last), prepend=-1)
        self._set(ended[: len(is_text)][is_text].tobytes())

    def _set(self, text: bytes) -> None:
        self.text = text
        self.codes = np.frombuffer(text, np.uint8)
        self.ends = np.flatnonzero(self.codes == _NEWLINE)
        self.starts = np.roll(self.ends, 1) + 1
        self.starts[:1] = 0
        self._is_ascii = text.isascii()

    def remove(self, lines: list[int]) -> None:
        """Leave out some lines."""
        begins = [0, *(self.ends[lines] + 1).tolist()]
        ends = [*self.starts[lines].tolist(), len(self.text)]
        self.num_texts = np.delete(self.num_texts, lines)
        self.__dict__.pop("_wide", None)
        self._set(b"".join([self.text[begin:end] for begin, end in zip(begins, ends, strict=True)]))

    def line(self, index: int) -> str:
        """The texts of one line as turns hold them."""
        return restore(self.text[self.starts[index] : self.ends[index]]).decode()

    @cached_property
    def _wide(self) -> tuple[Places, NDArray[np.uint32], Places]:
        """The lines that are not ASCII (or all, where those are many), their code points, and where each ends."""
        if self._is_ascii:
            return np.empty(0, np.intp), np.empty(0, np.uint32), np.empty(0, np.intp)
        lines, text = np.arange(len(self.ends)), self.text
        wide = np.flatnonzero(self.codes > 127)
        if 50 * len(wide) < len(text):
            lines = np.unique(np.searchsorted(self.ends, wide))
            places = zip(self.starts[lines].tolist(), self.ends[lines].tolist(), strict=True)
            text = b"".join([text[start : end + 1] for start, end in places])
        points = np.frombuffer(text.decode().encode("utf-32-le"), np.uint32)
        return lines, points, np.flatnonzero(points == _NEWLINE)

    def odd_lines(self, alphabet: Alphabet) -> Places:
        """The lines of characters that odd texts have, some of them several times."""
        lines, points, ends = self._wide
        odd = np.searchsorted(self.ends, odd_ascii(self.text))
        return np.append(odd, lines[np.searchsorted(ends, alphabet.odd(points))])

    def measure(self, alphabet: Alphabet) -> Measures:
        is_letter = ((self.codes | 0x20) - np.uint8(ord("a"))) < 26
        num_beyond_ascii = np.empty(0, np.intp)
        folded = fold(self.text).split(b"\n")
        lengths = self.ends - self.starts
        if not self._is_ascii:
            lines, points, ends = self._wide
            lengths[lines] = np.diff(ends, prepend=-1) - 1
            num_beyond_ascii = np.bincount(points)
            num_beyond_ascii[:128] = 0
            for index in np.unique(lines[np.searchsorted(ends, alphabet.folded(points))]).tolist():
                folded[index] = normalised(self.line(index)).encode()
        num_characters = lengths + 1 - self.num_texts
        return Measures(
            num_characters=num_characters.tolist(),
            hashes=list(map(hash, folded[:-1])),
            num_ascii_letters=int(np.count_nonzero(is_letter)),
            num_beyond_ascii=num_beyond_ascii,
        )


def strip(codes: NDArray[np.uint8], texts: TextPlaces) -> Flags:
    """Leave out white space around texts; whether what is left of each is a text that has none around it."""
    starts, ends, _ = texts
    for _ in range(_MAX_SPACES):
        before, after = _IS_SPACE[codes[starts]], _IS_SPACE[codes[ends - 1]]
        if not before.any() and not after.any():
            break
        starts += before
        ends -= after
    first, last = codes[starts], codes[ends - 1]
    is_stripped: Flags = (starts < ends) & ~_IS_SPACE[first] & ~_IS_SPACE[last]
    wide = np.flatnonzero(_BEGINS_SPACE[first] | _ENDS_SPACE[last])
    if len(wide):
        heads, tails = starts[wide], ends[wide] - 3
        is_stripped[wide] &= ~(_is_wide_space(codes, heads, 0) | _is_wide_space(codes, tails, 1))
    return is_stripped


def _is_wide_space(codes: NDArray[np.uint8], places: Places, skipped: int) -> Flags:
    """Whether white space beyond ASCII is at these places, of three bytes or, after so many skipped, of two."""
    first, second, third = (codes[places + offset].astype(np.int32) for offset in range(3))
    narrow = first << 8 | second if skipped == 0 else second << 8 | third
    return np.isin(first << 16 | second << 8 | third, _WIDE_SPACES) | np.isin(narrow, _NARROW_SPACES)
