"""Blocks of whole lines, cut from the bytes of a data file.

Blank and overlong lines are left out. Overlong lines are reported, and blank ones if data follows.
"""

from __future__ import annotations

import io
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convo_cli.data.decompress import BUFFER_BYTES
from convo_cli.data.problems import Problem, ProblemSink, at_line

_LINE_END = re.compile(rb"(?<!\r)\r+\n")
_NEWLINE, _SPACE = b"\n "


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive lines of a file without the blank ones."""

    data: bytes
    """The lines, each ended by a newline without carriage return."""
    numbers: NDArray[np.int64]
    """The 1-based number of each line."""
    end: int
    """Bytes of the file read so far; of a compressed file, its bytes on disk."""

    def lines(self) -> list[bytes]:
        """Each line without its end."""
        return self.data.split(b"\n")[:-1]

    def first(self, number: int) -> Block:
        """Return a block of the first lines."""
        data = b"".join(line + b"\n" for line in self.lines()[:number])
        return Block(data, self.numbers[:number], self.end)


class LineCutter:
    """Cuts one file into blocks; problems of lines that are in no block go to ``found``."""

    def __init__(self, source: str, found: ProblemSink, max_line_bytes: int) -> None:
        self._source = source
        self._found = found
        self._max_line_bytes = max_line_bytes
        self._number = 1
        self._num_blank = 0
        self._is_empty = True

    def blocks(
        self, stream: io.BufferedReader[Any], position: Callable[[], int] | None
    ) -> Iterator[Block]:
        """Yield the blocks.

        ``position`` returns the number of bytes read from the file; without it, the bytes cut.
        """
        done = 0
        for piece in self._pieces(stream):
            done += len(piece)
            data = piece.removeprefix(BOM_UTF8) if self._number == 1 else piece
            if b"\r" in data:
                data = _LINE_END.sub(b"\n", data)
            end = position() if position else done
            num_lines = _num_lines(data)
            if not num_lines or len(data) > self._max_line_bytes:
                yield from self._line_by_line(data, end)
            else:
                self._report_blank_lines()
                numbers = np.arange(self._number, self._number + num_lines)
                self._number += num_lines
                yield Block(data, numbers, end)
        if self._is_empty:
            problem = Problem("empty-file", "the file contains no dialogues")
            self._found(at_line(problem, self._source, 1))

    def _pieces(self, stream: io.BufferedReader[Any]) -> Iterator[bytes]:
        """Yield whole lines; of an overlong line only the beginning, which is overlong too."""
        begun = b""
        while piece := stream.read1(BUFFER_BYTES):
            piece = begun + piece
            end = piece.rfind(b"\n") + 1
            if end:
                yield piece[:end]
            begun = piece[end:]
            if len(begun) > min(BUFFER_BYTES // 4, self._max_line_bytes):
                begun += stream.readline(max(0, self._max_line_bytes + 1 - len(begun)))
                if not begun.endswith(b"\n") and len(begun) > self._max_line_bytes:
                    while (rest := stream.readline(BUFFER_BYTES)) and not rest.endswith(b"\n"):
                        pass
                    begun += b"\n"
                if begun.endswith(b"\n"):
                    yield begun
                    begun = b""
        if begun:
            yield begun + b"\n"

    def _line_by_line(self, data: bytes, end: int) -> Iterator[Block]:
        lines: list[tuple[int, bytes]] = []
        for line in data.split(b"\n")[:-1]:
            if len(line) > self._max_line_bytes:
                yield from _block(lines, end)
                lines = []
                self._report_long_line(line)
            elif line.strip():
                self._report_blank_lines()
                lines.append((self._number, line))
            else:
                self._num_blank += 1
            self._number += 1
        yield from _block(lines, end)

    def _report_long_line(self, line: bytes) -> None:
        self._is_empty = False
        is_array = line[:100].lstrip()[:2] in (b"[[", b"[{")
        what = "; it looks like one array of all dialogues" if is_array else ""
        message = f"the line is longer than {_size(self._max_line_bytes)}{what}"
        self._found(at_line(Problem("line-too-long", message), self._source, self._number))

    def _report_blank_lines(self) -> None:
        """Report blank lines that are followed by data; others are fine."""
        self._is_empty = False
        if self._num_blank:
            is_one = self._num_blank == 1
            what = "the line is blank" if is_one else f"{self._num_blank} lines in a row are blank"
            problem = Problem("blank-line", what)
            self._found(at_line(problem, self._source, self._number - self._num_blank))
            self._num_blank = 0


def _num_lines(data: bytes) -> int:
    """Return the number of lines; 0 if one begins with white space, as every blank line does."""
    codes = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(codes == _NEWLINE)
    may_be_blank = data[0] <= _SPACE or (codes[ends[:-1] + 1] <= _SPACE).any()
    return 0 if may_be_blank else len(ends)


def _block(lines: list[tuple[int, bytes]], end: int) -> Iterator[Block]:
    if lines:
        numbers, texts = zip(*lines, strict=True)
        yield Block(b"\n".join(texts) + b"\n", np.array(numbers, np.int64), end)


def _size(num_bytes: int) -> str:
    return f"{num_bytes // 2**20} MiB" if num_bytes >= 2**20 else f"{num_bytes} bytes"
