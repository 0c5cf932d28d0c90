"""Word wrap of a text that arrives in pieces, by the columns that it takes on a terminal.

Only line breaks are inserted, each in place of the spaces where a line ends, so the text keeps its
own line breaks, indentation and code. The result does not depend on how the text is cut into
pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from wcwidth import iter_graphemes, wcswidth, wcwidth

_TAB = 8  # columns between the tab stops of a terminal
_LONGEST_CLUSTER = 32  # characters; a real one has about ten, an attack may have any number
_LONGEST_WORD = 4096  # characters that are held back; most of so many have no width
_NO_FIRST = frozenset("、。，．：；！？）」』】〕〉》・ーぁぃぅぇぉっゃゅょァィゥェォッャュョ々…’”")
"""Characters that do not begin a line of Chinese, Japanese or Korean."""


@lru_cache(maxsize=4096)
def columns(cluster: str) -> int:
    """Return the columns of a character with its marks.

    Terminals disagree about joined emoji, so the larger of both answers counts: no line gets wider
    than the terminal.
    """
    return max(sum(max(0, wcwidth(char)) for char in cluster), wcswidth(cluster))


def clusters(text: str) -> Iterator[str]:
    """Yield the characters of a text, each with the marks and joined characters that follow it."""
    cluster = ""
    for char in text:
        if cluster and _continues(cluster, char):
            cluster += char
        else:
            if cluster:
                yield cluster
            cluster = char
    if cluster:
        yield cluster


def _continues(cluster: str, char: str) -> bool:
    """Return whether a character belongs to the same cluster as those before it."""
    if char.isascii() or len(cluster) >= _LONGEST_CLUSTER:
        return False
    return sum(1 for _ in iter_graphemes(cluster + char)) == 1


class WordWrap:
    """Wraps a text so that no line is wider than ``width()``, read at the start of each line.

    ``column`` is the column at which the text begins, for example after a label. A word is held
    back until it is complete, or has a line of its own. A word wider than a line is cut.
    """

    def __init__(self, width: Callable[[], int], *, column: int = 0) -> None:
        self._width = width
        self._limit = max(1, width())
        self._column = column
        self._spaces: list[str] = []
        """Spaces and tabs that follow the shown text."""
        self._word: list[str] = []
        """Clusters that are held back."""
        self._word_width = 0
        self._word_size = 0
        self._is_begun = False
        """The line holds the beginning of the word, and nothing else that could move up."""
        self._last = ""
        """The last cluster of the word, shown or held back."""
        self._cluster = ""
        """The last character with its marks, which the next character may extend."""

    def push(self, piece: str) -> str:
        """Return the text that can be shown now."""
        return "".join(part for char in piece for part in self._add(char))

    def finish(self) -> str:
        """Return the text that was held back; no piece comes after this."""
        return "".join((*self._end_cluster(), *self._end_word(), *self._end_spaces()))

    def _add(self, char: str) -> Iterator[str]:
        if char in " \t\n":
            yield from self._end_cluster()
            yield from self._end_word()
            if char == "\n":
                yield from self._end_spaces()
                yield self._break()
            else:
                self._spaces.append(char)
        elif self._cluster and _continues(self._cluster, char):
            self._cluster += char
        else:
            yield from self._end_cluster()
            self._cluster = char

    def _end_cluster(self) -> Iterator[str]:
        cluster, self._cluster = self._cluster, ""
        if not cluster:
            return
        if self._last and _may_break(self._last, cluster):
            yield from self._end_word()
        self._last = cluster
        if self._is_begun:
            yield from self._cut([cluster])
            return
        self._word.append(cluster)
        self._word_width += columns(cluster)
        self._word_size += len(cluster)
        if self._word_width > self._room() or self._word_size > _LONGEST_WORD:
            yield from self._place()
            self._is_begun = True

    def _end_word(self) -> Iterator[str]:
        yield from self._place()
        self._is_begun = False
        self._last = ""

    def _place(self) -> Iterator[str]:
        """Show the word on this line, or on the next one if it does not fit."""
        if not self._word:
            return
        if self._word_width > self._room():
            if self._column:
                yield self._break()
            self._spaces.clear()  # also an indentation that leaves too little room
        yield from self._end_spaces()
        yield from self._cut(self._word)
        self._word.clear()
        self._word_width = self._word_size = 0

    def _cut(self, word: Iterable[str]) -> Iterator[str]:
        """Show clusters; the line breaks where one does not fit."""
        for cluster in word:
            # A cluster wider than a line is shown as its characters.
            parts = cluster if columns(cluster) > self._limit else [cluster]
            for part in parts:
                width = columns(part)
                if self._column and self._column + width > self._limit:
                    yield self._break()
                self._column += width
                yield part

    def _end_spaces(self) -> Iterator[str]:
        """Show spaces, unless they are wider than the rest of the line."""
        if (room := self._room()) >= 0:
            yield "".join(self._spaces)
            self._column = self._limit - room
        self._spaces.clear()

    def _room(self) -> int:
        """Return the columns that are left on the line after the spaces."""
        column = self._column
        for space in self._spaces:
            column += _TAB - column % _TAB if space == "\t" else 1
        return self._limit - column

    def _break(self) -> str:
        self._column = 0
        self._limit = max(1, self._width())
        return "\n"


def _may_break(before: str, after: str) -> bool:
    """Return whether a line may end between two clusters without a space: around wide ones."""
    is_wide = columns(before) > 1 or columns(after) > 1
    return is_wide and columns(after) > 0 and after[0] not in _NO_FIRST
