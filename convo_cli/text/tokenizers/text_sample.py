"""Training text of a new tokenizer: all lines, or a random sample of them if there are too many.

A line is drawn by its place in the text, not by its content, so the sample is the same in every run
and on every machine. Every file has the share of the sample that it has of the text, and a frequent
line is as frequent in the sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np

MAX_CHARACTERS = 50_000_000
"""About 100 MB of text, because SentencePiece holds its corpus in memory."""
_MAX_LINE_CHARACTERS = 1000
"""SentencePiece takes time quadratic in the length of a line that repeats itself."""
_NUM_LEVELS = 1 << 16
_DRAWN = 1 << 12  # levels drawn at once


class TextSample:
    """Lines of the added texts, in their order, with at most ``most`` characters.

    Each line has a random level. The sample has the lines below a bound, which falls while they
    have too many characters. Lines are written to ``spool``, an empty file, so memory is bounded;
    for a text of N characters the file gets about ``most * (1 + log(N / most))``.
    """

    def __init__(
        self, spool: IO[bytes], texts: Iterable[str] = (), most: int = MAX_CHARACTERS
    ) -> None:
        self._spool, self._most = spool, most
        self.num_characters = self.num_sampled = 0
        self._levels = _draw_levels()
        self._bound, self._sizes = _NUM_LEVELS, [0] * _NUM_LEVELS
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Add the lines of a text, which are SentencePiece's sentences."""
        for line in text.splitlines():
            for part in _parts(line):
                self._add(part)

    def _add(self, line: str) -> None:
        level = next(self._levels)
        self.num_characters += len(line)
        if level >= self._bound:
            return
        self._spool.write(b"%d:%b\n" % (level, line.encode()))
        self._sizes[level] += len(line)
        self.num_sampled += len(line)
        while self.num_sampled > self._most:
            self._bound -= 1
            self.num_sampled -= self._sizes[self._bound]

    def __iter__(self) -> Iterator[str]:
        self._spool.seek(0)
        for entry in self._spool:
            level, _, line = entry.partition(b":")
            if int(level) < self._bound:
                yield line[:-1].decode()


def _draw_levels() -> Iterator[int]:
    # NumPy guarantees the raw numbers of a bit generator, unlike those of a distribution.
    generator = np.random.PCG64(0)
    while True:
        yield from (generator.random_raw(_DRAWN) >> np.uint64(48)).tolist()


def _parts(line: str) -> Iterator[str]:
    """Cut a long line before spaces where it has them, as SentencePiece cuts it into words."""
    start = 0
    while len(line) - start > _MAX_LINE_CHARACTERS:
        limit = start + _MAX_LINE_CHARACTERS
        space = line.rfind(" ", start + 1, limit + 1)
        yield line[start : (end := limit if space < 0 else space)]
        start = end
    yield line[start:]
