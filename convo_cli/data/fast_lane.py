"""Many good lines at once: nothing here looks at a line by itself, and nothing here finds fault.

    block ── without escapes ── strings ── literals ──> kinds of lines, each judged once by the exact reader
                                   └────── texts ─────> side by side in one array: sieved, measured, hashed

Lines with the same literals around their texts are the same but for the texts, so one made-up line of each kind tells
all about them. Every line about which there is a doubt is left to the exact reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convo_cli.data.fingerprint import normalised
from convo_cli.data.literals import Literals, Places, Strings, find_strings
from convo_cli.data.plain_lines import SPACES, fold, plain, restore
from convo_cli.data.problems import Problem
from convo_cli.data.sieve import Alphabet, Flags, begin_oddly, odd_ascii
from convo_cli.data.skeleton import LineRules, Skeleton, read_line
from convo_cli.data.suspicions import LONG_UTTERANCE_BYTES, may_be_odd
from convo_cli.data.unpack import BUFFER_BYTES

_MAX_BYTES = 4 * BUFFER_BYTES
"""A block is larger where a single line is; columns of that would be larger still."""
_MAX_KINDS = 20_000
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


@dataclass(slots=True)
class GoodLines:
    """The lines of a block in which nothing is wrong or odd, in order."""

    lines: Places = field(default_factory=lambda: np.empty(0, np.intp))
    """Which they are, from 0."""
    new: Sequence[tuple[int, Skeleton]] = ()
    """Skeletons that no earlier block had, and the line of each; `FastLane.skeletons` has them all."""
    num_characters: Sequence[int] = ()
    """Of each line, its texts only."""
    hashes: Sequence[int] = ()
    """Of each line, of its texts in their normalised form."""
    num_ascii_letters: int = 0
    num_beyond_ascii: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    """How often each code point beyond ASCII is there."""


class _Kind(NamedTuple):
    """The skeleton of some lines, and which of their strings are the texts of turns: a byte of 1 for each that is."""

    skeleton: Skeleton
    is_text: bytes


class _Texts(NamedTuple):
    """Where texts are in a block, and the line of each."""

    starts: Places
    ends: Places
    lines: Places


class FastLane:
    """Reads blocks of one file; what it learns from one block makes the next faster."""

    def __init__(self, rules: LineRules) -> None:
        self._rules = rules
        self._literals = Literals()
        self._alphabet = Alphabet()
        self._kinds: list[_Kind] = []
        self._kind_of: dict[bytes, int] = {}
        self._num_lines = np.zeros(_MAX_KINDS, np.int64)

    def skeletons(self) -> Iterator[tuple[Skeleton, int]]:
        """The skeletons of all good lines so far, and of how many lines."""
        return ((kind.skeleton, int(count)) for kind, count in zip(self._kinds, self._num_lines, strict=False) if count)

    def read(self, data: bytes) -> GoodLines:
        """Read the lines that are surely good; ``data`` is whole lines."""
        if len(data) > _MAX_BYTES:
            return GoodLines()
        block, strings, kept = _take_apart(data)
        if not len(kept):
            return GoodLines()
        signatures = self._literals.signatures(block, strings)
        known = map(self._kind_of.get, signatures)
        kinds = np.array(
            [self._kind(each) if kind is None else kind for kind, each in zip(known, signatures, strict=True)], np.intp
        )
        is_good = kinds >= 0
        texts = self._find_texts(strings, kinds)
        is_stripped = _strip(strings.codes, texts)
        is_short = texts.ends - texts.starts <= LONG_UTTERANCE_BYTES
        is_good[texts.lines[~(is_stripped & is_short)]] = False

        is_suspect = np.zeros(len(kinds), np.bool_)
        is_suspect[texts.lines[begin_oddly(block, texts.starts, texts.ends)]] = True
        flat = _Flat(strings.codes, texts, is_good)
        lines = np.flatnonzero(is_good)
        is_suspect[lines[flat.odd_lines(self._alphabet)]] = True
        odd = [index for index in np.flatnonzero(is_suspect[lines]).tolist() if may_be_odd(flat.line(index))]
        if odd:
            is_good[lines[odd]] = False
            flat.remove(odd)
        good = flat.measure(self._alphabet)
        good.lines = kept[is_good]
        counts = np.bincount(kinds[is_good])
        for kind in np.flatnonzero(counts * (self._num_lines[: len(counts)] == 0)).tolist():
            good.new = [*good.new, (int(kept[np.argmax(is_good & (kinds == kind))]), self._kinds[kind].skeleton)]
        self._num_lines[: len(counts)] += counts
        return good

    def _kind(self, signature: bytes) -> int:
        """The number of what lines of these literals are; -1 where the exact reader has to see each of them."""
        literals = self._literals.of(signature)
        if literals is None or len(self._kind_of) >= _MAX_KINDS:
            return -1
        kind = self._judge(literals)
        self._kind_of[signature] = -1 if kind is None else len(self._kinds)
        if kind is not None:
            self._kinds.append(kind)
        return self._kind_of[signature]

    def _find_texts(self, strings: Strings, kinds: Places) -> _Texts:
        """The texts of the lines that have a kind."""
        num_strings = np.diff(strings.first)
        flags = [
            self._kinds[kind].is_text if kind >= 0 else bytes(number)
            for kind, number in zip(kinds.tolist(), num_strings.tolist(), strict=True)
        ]
        is_text = np.frombuffer(b"".join(flags), np.bool_)
        lines = np.repeat(np.arange(len(kinds)), num_strings)
        return _Texts(strings.opens[is_text] + 1, strings.closes[is_text], lines[is_text])

    def _judge(self, literals: list[bytes]) -> _Kind | None:
        """Let the exact reader judge a line of these literals around made-up texts."""
        made_up = [f"text {number}" for number in range(len(literals) - 1)]
        pieces = [text.encode() + literal for text, literal in zip(made_up, literals[1:], strict=True)]
        line = b"".join([literals[0], *pieces])
        problems: list[Problem] = []
        reading = read_line(line[1:-1], self._rules, problems.append)
        if reading is None or problems:
            return None
        skeleton, turns = reading
        texts = [turn.text for _, turn in turns]
        # A text may be put together of several strings, and the system turn may be written last.
        if [text for text in made_up if text in set(texts)] != texts:
            return None
        return _Kind(skeleton, bytes(text in texts for text in made_up))


class _Flat:
    """The texts of the good lines side by side: NUL between texts, a newline after each line."""

    def __init__(self, codes: NDArray[np.uint8], texts: _Texts, is_good: Flags) -> None:
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
        return np.append(odd, lines[np.searchsorted(ends, alphabet.notable(points))])

    def measure(self, alphabet: Alphabet) -> GoodLines:
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
        return GoodLines(
            num_characters=num_characters.tolist(),
            hashes=list(map(hash, folded[:-1])),
            num_ascii_letters=int(np.count_nonzero(is_letter)),
            num_beyond_ascii=num_beyond_ascii,
        )


def hash_texts(texts: Sequence[str]) -> int:
    """64 bits that dialogues of the same normalised texts share, in this process."""
    return hash(normalised("\0".join(texts)).encode())


def _take_apart(data: bytes) -> tuple[bytes, Strings, Places]:
    """A newline and the lines without escapes, their strings, and which lines they are: faulty ones are left out."""
    try:
        block = b"\n" + plain(data)
        if (strings := find_strings(block)) is not None:
            return block, strings, np.arange(len(strings.newlines) - 1)
    except ValueError:
        pass
    lines, kept = [b"\n"], []
    for index, line in enumerate(data.split(b"\n")[:-1]):
        try:
            line = plain(line + b"\n")
        except ValueError:
            continue
        if line.count(b'"') % 2 == 0:
            lines.append(line)
            kept.append(index)
    block = b"".join(lines)
    strings = find_strings(block)
    assert strings is not None, "each line has an even number of quotes"
    return block, strings, np.array(kept, np.intp)


def _strip(codes: NDArray[np.uint8], texts: _Texts) -> Flags:
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
