"""The way into data files: as blocks of lines for validation, lines for repair, dialogues for everything else.

Never more than a block of lines is in memory.
"""

from __future__ import annotations

import difflib
import io
import itertools
import os
import re
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convo_cli.config.schema import DataConfig
from convo_cli.data.decompress import BUFFER_BYTES, DAMAGED, STDIN, OpenRaw, open_unpacked
from convo_cli.data.dialogue import Dialogue, is_excluded
from convo_cli.data.omissions import Omissions
from convo_cli.data.problems import Problem, ProblemSink, refuse
from convo_cli.data.recognise import recognise_compression, recognise_content
from convo_cli.data.shapes.formats import LineReading, read_value
from convo_cli.data.strict_json import decode, place
from convo_cli.errors import UsageError, typeable
from convo_cli.storage.files import special_kind

MAX_LINE_BYTES = 64 * 2**20
"""Longest line that is read, 64 MiB; a longer one is reported and skipped."""

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"(?<!\r)\r+\n")
_NEWLINE, _SPACE = b"\n "


@dataclass(frozen=True, slots=True)
class Block:
    """Lines of a file, none of them blank."""

    data: bytes
    """The lines, each ended by a newline without carriage return."""
    numbers: NDArray[np.int64]
    """The 1-based number of each."""
    end: int
    """How many bytes of the file have been read for it; those on disk where the file is packed."""

    def lines(self) -> list[bytes]:
        """Each line without its end."""
        return self.data.split(b"\n")[:-1]


def check_source(source: str, *, is_read_again: bool = False) -> None:
    """Raise `UsageError` where ``source`` cannot be opened, or can be read only once though it ``is_read_again``."""
    if source == STDIN:
        return
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{source} does not exist", hint=_similar(path)) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{source} cannot be read: {_reason(error)}") from None
    if stat.S_ISDIR(mode):
        raise UsageError(f"{source} is a directory", hint=f"name the files in it, for example {path / 'train.jsonl'}")
    kind = special_kind(mode)
    if kind is not None and not stat.S_ISFIFO(mode):
        raise UsageError(f"{source} is {kind}, not a file of dialogues", hint="name a JSONL file")
    if kind is not None and is_read_again:
        command = "…" if source.startswith("/dev/") else f"cat {typeable(source)}"
        raise UsageError(
            f"{source} is {kind}, and this data is read more than once",
            hint=f"write it to a file first: {command} > data.jsonl",
        )
    # Not by opening it: the writer of a named pipe would take that for its reader.
    if not os.access(path, os.R_OK):
        raise UsageError(f"{source} cannot be read: permission denied", hint=f"chmod +r {typeable(source)}")


def read_dialogues(
    paths: Sequence[str],
    data_config: DataConfig,
    omissions: Sequence[Omissions] | None = None,
    open_raw: OpenRaw | None = None,
) -> Generator[Dialogue, None, None]:
    """Yield every dialogue of the files in order; raises `DataError` at the first line that is not one.

    A dialogue that the data itself excludes from training is left out. ``omissions``, one for each file, count such
    dialogues and everything else that is not trained on.
    """
    for path, left_out in zip(paths, omissions or [Omissions() for _ in paths], strict=True):
        for number, raw in iter_lines(path, open_raw=open_raw):
            reading = _read_line(raw, path, number, data_config)
            if reading is None:
                continue
            turns = tuple(turn for _, turn in reading.turns)
            if is_excluded(turns):
                left_out.num_excluded += 1
                continue
            left_out.add(reading)
            yield Dialogue(turns, number, path)


def iter_lines(
    source: str,
    found: ProblemSink = refuse,
    *,
    max_line_bytes: int = MAX_LINE_BYTES,
    open_raw: OpenRaw | None = None,
) -> Iterator[tuple[int, bytes]]:
    """Yield the 1-based number and the bytes, without their line end, of every line that is not blank."""
    for block in iter_blocks(source, found, max_line_bytes=max_line_bytes, open_raw=open_raw):
        yield from zip(block.numbers.tolist(), block.lines(), strict=True)


def iter_blocks(
    source: str,
    found: ProblemSink = refuse,
    *,
    max_line_bytes: int = MAX_LINE_BYTES,
    open_raw: OpenRaw | None = None,
) -> Iterator[Block]:
    """Yield the lines that are not blank, about `BUFFER_BYTES` at a time.

    ``source`` is a path (.gz and .zst are unpacked) or ``-``. What makes a line or the rest of the file unreadable
    goes to ``found``; a file that cannot be opened raises `UsageError`.
    """
    check_source(source)
    number = 0
    try:
        with open_unpacked(source, open_raw) as (packed, text):
            unfit = recognise_compression(packed.peek(4)[:4], Path(source).suffix.lower())
            unfit = unfit or recognise_content(text.peek(BUFFER_BYTES), _inner_suffix(source))
            if unfit is not None:
                found(_at(unfit, source, 1))
                return
            position = packed.tell if source != STDIN and packed.seekable() else None
            for block in _LineCutter(source, found, max_line_bytes).blocks(text, position):
                number = int(block.numbers[-1])
                yield block
    except DAMAGED as error:
        message = f"the compressed data cannot be unpacked: {_reason(error)}"
        found(_at(Problem("damaged-file", message), source, number + 1))
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {_reason(error)} (after line {number})") from None


def _read_line(raw: bytes, file: str, line: int, data_config: DataConfig) -> LineReading | None:
    def refuse_here(problem: Problem) -> None:
        refuse(place(problem, file, line, raw))

    return read_value(decode(raw, refuse_here), data_config, refuse_here)


class _LineCutter:
    """Cuts the bytes of a file into blocks of lines, and reports what is wrong with the lines as such."""

    def __init__(self, source: str, found: ProblemSink, max_line_bytes: int) -> None:
        self._source = source
        self._found = found
        self._max_line_bytes = max_line_bytes
        self._number = 1
        self._num_blank = 0
        self._is_empty = True

    def blocks(self, stream: io.BufferedReader[Any], position: Callable[[], int] | None) -> Iterator[Block]:
        """``position`` tells how far the file is read; None where what was yielded is to be counted."""
        done = 0
        for piece in self._pieces(stream):
            done += len(piece)
            data = piece.removeprefix(_BOM) if self._number == 1 else piece
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
            self._found(_at(Problem("empty-file", "there is no dialogue in it"), self._source, 1))

    def _pieces(self, stream: io.BufferedReader[Any]) -> Iterator[bytes]:
        """Yield whole lines; of a line over the limit only its beginning, which is over the limit too."""
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
        kept: list[tuple[int, bytes]] = []
        for line in data.split(b"\n")[:-1]:
            if len(line) > self._max_line_bytes:
                yield from _block(kept, end)
                kept = []
                self._report_long_line(line)
            elif line.strip():
                self._report_blank_lines()
                kept.append((self._number, line))
            else:
                self._num_blank += 1
            self._number += 1
        yield from _block(kept, end)

    def _report_long_line(self, line: bytes) -> None:
        self._is_empty = False
        what = "; it looks like one array of all dialogues" if line[:100].lstrip()[:2] in (b"[[", b"[{") else ""
        message = f"the line is over {_size(self._max_line_bytes)}{what}"
        self._found(_at(Problem("line-too-long", message), self._source, self._number))

    def _report_blank_lines(self) -> None:
        """Blank lines are a fault only before more data."""
        self._is_empty = False
        if self._num_blank:
            what = "a blank line" if self._num_blank == 1 else f"{self._num_blank} blank lines"
            problem = Problem("blank-line", f"{what} before more data")
            self._found(_at(problem, self._source, self._number - self._num_blank))
            self._num_blank = 0


def _num_lines(data: bytes) -> int:
    """How many lines there are; 0 where one begins with white space, as every blank line does."""
    codes = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(codes == _NEWLINE)
    may_be_blank = data[0] <= _SPACE or (codes[ends[:-1] + 1] <= _SPACE).any()
    return 0 if may_be_blank else len(ends)


def _block(lines: list[tuple[int, bytes]], end: int) -> Iterator[Block]:
    if lines:
        numbers, texts = zip(*lines, strict=True)
        yield Block(b"\n".join(texts) + b"\n", np.array(numbers, np.int64), end)


def _at(problem: Problem, source: str, line: int) -> Problem:
    return Problem(problem.code, problem.message, problem.path, column=1, line=line, file=source)


def _inner_suffix(source: str) -> str:
    """The suffix of the text itself: .jsonl of train.jsonl.gz."""
    suffixes = [suffix.lower() for suffix in Path(source).suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in (".gz", ".zst")), "")


def _similar(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    names = [entry.name for entry in itertools.islice(path.parent.iterdir(), 1000)]
    matches = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.parent / matches[0]}?" if matches else f"look in {path.parent.absolute()}"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _size(num_bytes: int) -> str:
    return f"{num_bytes // 2**20} MiB" if num_bytes >= 2**20 else f"{num_bytes} bytes"
