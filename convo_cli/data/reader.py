"""The lines and the dialogues of data files, one at a time and never more than one in memory."""

from __future__ import annotations

import difflib
import io
import itertools
import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from convo_cli.config.schema import DataConfig
from convo_cli.data.dialogue import Dialogue
from convo_cli.data.formats import to_dialogue
from convo_cli.data.problems import Problem, ProblemSink, refuse
from convo_cli.data.recognise import recognise_compression, recognise_content
from convo_cli.data.strict_json import decode, place
from convo_cli.data.unpack import BUFFER_BYTES, DAMAGED, STDIN, open_unpacked
from convo_cli.errors import UsageError

MAX_LINE_BYTES = 64 * 2**20
"""Longest line that is read, 64 MiB; a longer one is reported and skipped."""

_BOM = b"\xef\xbb\xbf"


def check_source(source: str) -> None:
    """Raise `UsageError` where ``source`` is no file that can be opened."""
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
    # Not by opening it: whoever writes into a named pipe would take that for its reader.
    if not os.access(path, os.R_OK):
        raise UsageError(f"{source} cannot be read: permission denied", hint=f"chmod +r {shlex.quote(source)}")


def read_dialogues(paths: Iterable[str], data_config: DataConfig) -> Iterator[Dialogue]:
    """Yield every dialogue of the files in order; raises `DataError` at the first line that is not one."""
    for path in paths:
        for number, raw in iter_lines(path):
            dialogue = _read_line(raw, path, number, data_config)
            if dialogue is not None:
                yield dialogue


def iter_lines(
    source: str, found: ProblemSink = refuse, *, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[tuple[int, bytes]]:
    """Yield the 1-based number and the bytes, without their line end, of every line that is not blank.

    ``source`` is a path (.gz and .zst are unpacked) or ``-``. What makes a line or the rest of the file unreadable
    goes to ``found``; a file that cannot be opened raises `UsageError`.
    """
    check_source(source)
    number = 0
    try:
        with open_unpacked(source) as (packed, lines):
            unfit = recognise_compression(packed.peek(4)[:4], Path(source).suffix.lower())
            unfit = unfit or recognise_content(lines.peek(BUFFER_BYTES), _inner_suffix(source))
            if unfit is not None:
                found(_at(unfit, source, 1))
                return
            for number, line in _split(lines, source, found, max_line_bytes):
                yield number, line
    except DAMAGED as error:
        message = f"the compressed data cannot be unpacked: {_reason(error)}"
        found(_at(Problem("damaged-file", message), source, number + 1))
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {_reason(error)} (after line {number})") from None


def _read_line(raw: bytes, file: str, line: int, data_config: DataConfig) -> Dialogue | None:
    def refuse_here(problem: Problem) -> None:
        refuse(place(problem, file, line, raw))

    dialogue = to_dialogue(decode(raw, refuse_here), line, data_config, refuse_here)
    return None if dialogue is None else replace(dialogue, file=file)


def _split(
    stream: io.BufferedReader[Any], source: str, found: ProblemSink, max_line_bytes: int
) -> Iterator[tuple[int, bytes]]:
    num_blank = 0
    is_empty = True
    for number in itertools.count(1):
        line = stream.readline(max_line_bytes + 1)
        if not line:
            break
        if number == 1:
            line = line.removeprefix(_BOM)
        if len(line) > max_line_bytes and not line.endswith(b"\n"):
            is_array = line.lstrip()[:2] in (b"[[", b"[{")
            del line
            while (rest := stream.readline(BUFFER_BYTES)) and not rest.endswith(b"\n"):
                pass
            what = "; it looks like one array of all dialogues" if is_array else ""
            found(_at(Problem("line-too-long", f"the line is over {_size(max_line_bytes)}{what}"), source, number))
            is_empty = False
        elif line.strip():
            if num_blank:
                what = "a blank line" if num_blank == 1 else f"{num_blank} blank lines"
                found(_at(Problem("blank-line", f"{what} before more data"), source, number - num_blank))
                num_blank = 0
            is_empty = False
            yield number, line.rstrip(b"\r\n")
        else:
            num_blank += 1
    if is_empty:
        found(_at(Problem("empty-file", "there is no dialogue in it"), source, 1))


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
