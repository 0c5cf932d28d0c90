"""The good lines of a block, all at once: the fast lane of validation. It never looks at one line, nor finds fault.

    block of lines ──► literals ──► a signature per line ──► one line of each signature is judged by the slow lane
                          └───────► texts, side by side ───► the sieve asks which may be odd; the rest are measured

Lines of one signature differ only in strings and numbers, so one of them with made-up texts tells all about their
structure. Wherever there is a doubt about a line it goes to the slow lane, which reads it by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from convo_cli.data.checks.literals import Flags, Literals, Places, Strings, restore, take_apart
from convo_cli.data.checks.sieve import Alphabet, begin_oddly
from convo_cli.data.checks.slow_lane import LineRules, Skeleton, read_line
from convo_cli.data.checks.suspicions import LONG_UTTERANCE_BYTES, may_be_odd
from convo_cli.data.checks.texts import FlatTexts, Measures, TextPlaces, strip
from convo_cli.data.decompress import BUFFER_BYTES
from convo_cli.data.problems import Problem
from convo_cli.data.shapes.reasoning import has_tag
from convo_cli.data.shapes.unread import SHORT_TEXT_CHARACTERS, UnreadTexts, counted_length, is_identifier, texts_in

_MAX_BYTES = 4 * BUFFER_BYTES
"""A block is larger where a single line is; columns of that would be larger still."""
_MAX_KINDS = 20_000
_MAX_UNREAD_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class GoodLines:
    """The lines of a block in which nothing is wrong or odd, in order."""

    lines: Places = field(default_factory=lambda: np.empty(0, np.intp))
    """Which they are, from 0."""
    new: Sequence[tuple[int, Skeleton]] = ()
    """Skeletons that no earlier block had, and the line of each; `FastLane.skeletons` has them all."""
    measures: Measures = field(default_factory=Measures)


class _Kind(NamedTuple):
    """What lines of one signature have in common, with an entry for each of their strings."""

    skeleton: Skeleton
    is_text: bytes
    """1 for the text of a turn."""
    unread: bytes
    """As uint16: the number of the key that is not read and holds the string; 0 for other strings."""


class FastLane:
    """Reads blocks of one file; what it learns from one block makes the next faster."""

    def __init__(self, rules: LineRules) -> None:
        self._rules = rules
        self._literals = Literals()
        self._alphabet = Alphabet()
        self._kinds: list[_Kind] = []
        self._kind_of: dict[bytes, int] = {}
        self._num_lines = np.zeros(_MAX_KINDS, np.int64)
        self._unread: dict[str, UnreadTexts] = {}

    def skeletons(self) -> Iterator[tuple[Skeleton, int]]:
        """The skeletons of all good lines so far, and of how many lines."""
        return ((kind.skeleton, int(count)) for kind, count in zip(self._kinds, self._num_lines, strict=False) if count)

    def unread(self) -> Iterator[tuple[str, UnreadTexts]]:
        """Number and length of the texts under each key that is not read, in all good lines so far."""
        return ((key, texts) for key, texts in self._unread.items() if texts.num_texts)

    def read(self, data: bytes) -> GoodLines:
        """Read the lines that are surely good; ``data`` is whole lines."""
        if len(data) > _MAX_BYTES:
            return GoodLines()
        block, strings, kept = take_apart(data)
        if not len(kept):
            return GoodLines()
        signatures = self._literals.signatures(block, strings)
        known = map(self._kind_of.get, signatures)
        kinds = np.array(
            [self._kind(each) if kind is None else kind for kind, each in zip(known, signatures, strict=True)], np.intp
        )
        is_good = kinds >= 0
        texts = self._find_texts(strings, kinds)
        is_stripped = strip(strings.codes, texts)
        is_short = texts.ends - texts.starts <= LONG_UTTERANCE_BYTES
        is_good[texts.lines[~(is_stripped & is_short)]] = False

        is_suspect = np.zeros(len(kinds), np.bool_)
        is_suspect[texts.lines[begin_oddly(block, texts.starts, texts.ends)]] = True
        flat = FlatTexts(strings.codes, texts, is_good)
        lines = np.flatnonzero(is_good)
        is_suspect[lines[flat.odd_lines(self._alphabet)]] = True
        odd = [index for index in np.flatnonzero(is_suspect[lines]).tolist() if _has_doubt(flat.line(index))]
        if odd:
            is_good[lines[odd]] = False
            flat.remove(odd)
        counts = np.bincount(kinds[is_good])
        new = [
            (int(kept[np.argmax(is_good & (kinds == kind))]), self._kinds[kind].skeleton)
            for kind in np.flatnonzero(counts * (self._num_lines[: len(counts)] == 0)).tolist()
        ]
        self._num_lines[: len(counts)] += counts
        if self._unread:
            self._count_unread(block, strings, kinds, texts, is_good)
        return GoodLines(kept[is_good], new, flat.measure(self._alphabet))

    def _kind(self, signature: bytes) -> int:
        """The number of the kind of lines that have this signature; -1 where the slow lane has to see each of them."""
        literals = self._literals.of(signature)
        if literals is None or len(self._kind_of) >= _MAX_KINDS:
            return -1
        kind = self._judge(literals)
        self._kind_of[signature] = -1 if kind is None else len(self._kinds)
        if kind is not None:
            self._kinds.append(kind)
        return self._kind_of[signature]

    def _find_texts(self, strings: Strings, kinds: Places) -> TextPlaces:
        """The texts of the lines that have a kind."""
        num_strings = np.diff(strings.first)
        flags = [
            self._kinds[kind].is_text if kind >= 0 else bytes(number)
            for kind, number in zip(kinds.tolist(), num_strings.tolist(), strict=True)
        ]
        is_text = np.frombuffer(b"".join(flags), np.bool_)
        lines = np.repeat(np.arange(len(kinds)), num_strings)
        return TextPlaces(strings.opens[is_text] + 1, strings.closes[is_text], lines[is_text])

    def _judge(self, literals: list[bytes]) -> _Kind | None:
        """Let the slow lane judge a line of these literals around made-up texts."""
        made_up = [f"text {number}" for number in range(len(literals) - 1)]
        pieces = [text.encode() + literal for text, literal in zip(made_up, literals[1:], strict=True)]
        line = b"".join([literals[0], *pieces])
        problems: list[Problem] = []
        reading = read_line(line[1:-1], self._rules, problems.append)
        if reading is None or problems:
            return None
        skeleton, (turns, unread) = reading
        texts = [turn.text for _, turn in turns]
        # A text may be put together of several strings, and the system turn may be written last.
        if [text for text in made_up if text in set(texts)] != texts:
            return None
        # The fast lane counts neither excluded dialogues, nor reasoning, nor strings that are no text or value.
        key_of = {text: key for _, key, value in unread for text in texts_in(value)}
        if skeleton.is_excluded or skeleton.num_reasoning or {*texts, *key_of} != set(made_up):
            return None
        if len(self._unread) + len(key_of) > _MAX_UNREAD_KEYS:
            return None
        for key in key_of.values():
            self._unread.setdefault(key, UnreadTexts())
        number_of = {key: number for number, key in enumerate(self._unread, 1)}
        numbers = [number_of[key_of[text]] if text in key_of else 0 for text in made_up]
        return _Kind(skeleton, bytes(text in texts for text in made_up), np.array(numbers, np.uint16).tobytes())

    def _count_unread(self, block: bytes, strings: Strings, kinds: Places, texts: TextPlaces, is_good: Flags) -> None:
        """Add up the lengths of the strings in keys that are not read."""
        num_strings = np.diff(strings.first)
        rows = [
            self._kinds[kind].unread if good else bytes(2 * number)
            for kind, good, number in zip(kinds.tolist(), is_good.tolist(), num_strings.tolist(), strict=True)
        ]
        key_of = np.frombuffer(b"".join(rows), np.uint16)
        places = np.flatnonzero(key_of)
        starts, ends = strings.opens[places] + 1, strings.closes[places]
        lengths = ends - starts
        if not block.isascii():
            before = np.append(0, np.cumsum((strings.codes & 0xC0) == 0x80))  # bytes that begin no character
            lengths -= before[ends] - before[starts]
        lines = np.repeat(np.arange(len(kinds)), num_strings)[places]

        @lru_cache(maxsize=1)
        def said(line: int) -> frozenset[str]:
            first, last = np.searchsorted(texts.lines, [line, line + 1])
            return frozenset(restore(block[texts.starts[k] : texts.ends[k]]).decode() for k in range(first, last))

        for index in np.flatnonzero(lengths > SHORT_TEXT_CHARACTERS).tolist():
            text = restore(block[starts[index] : ends[index]]).decode()
            turns = () if is_identifier(text) else said(int(lines[index]))
            lengths[index] = counted_length(text, turns)
        num_texts = np.bincount(key_of[places], minlength=len(self._unread) + 1)
        num_characters = np.bincount(key_of[places], lengths, minlength=len(self._unread) + 1)
        for number, counted in enumerate(self._unread.values(), 1):
            counted.add(int(num_texts[number]), int(num_characters[number]))


def _has_doubt(texts: str) -> bool:
    return may_be_odd(texts) or has_tag(texts)
