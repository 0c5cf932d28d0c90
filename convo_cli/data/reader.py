"""Reader of data files: blocks of lines for validation and repair, dialogues for training.

At most one block of lines is in memory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from convo_cli.config.dailydialog import how_to_get
from convo_cli.config.schema import DataConfig
from convo_cli.data.blocks import Block, LineCutter
from convo_cli.data.decompress import (
    BUFFER_BYTES,
    DAMAGED,
    STDIN,
    OpenRaw,
    WindowError,
    open_unpacked,
)
from convo_cli.data.dialogue import Dialogue, is_excluded
from convo_cli.data.omissions import Omissions
from convo_cli.data.problems import Problem, ProblemSink, at_line, refuse
from convo_cli.data.recognise import recognise_compression, recognise_content
from convo_cli.data.shapes.turns import LineReading, read_value
from convo_cli.data.strict_json.columns import place
from convo_cli.data.strict_json.decoder import decode
from convo_cli.errors import UsageError, path_too_long, typeable
from convo_cli.storage.files import special_kind
from convo_cli.storage.similar import similar_path

_HEAD_BYTES = 256
MAX_LINE_BYTES = 64 * 2**20
"""Longest line that is read, 64 MiB; a longer one is reported and skipped."""


def check_source(source: str, *, is_read_again: bool = False) -> None:
    """Raise `UsageError` if ``source`` cannot be opened, or cannot be read as often as needed."""
    if source == STDIN:
        return
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{source} does not exist", hint=_similar(path)) from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            raise path_too_long(source) from None
        raise UsageError(f"{source} cannot be read: {_reason(error)}") from None
    if stat.S_ISDIR(mode):
        raise UsageError(
            f"{source} is a directory",
            hint=f"give a file in it, for example {path / 'train.jsonl'}",
        )
    kind = special_kind(mode)
    if kind is not None and not stat.S_ISFIFO(mode):
        raise UsageError(f"{source} is {kind}, not a data file", hint="give a JSONL file")
    if kind is not None and is_read_again:
        command = "…" if source.startswith("/dev/") else f"cat {typeable(source)}"
        raise UsageError(
            f"{source} is {kind}, but convo reads this data more than once",
            hint=f"write it to a file first: {command} > data.jsonl",
        )
    # A named pipe is not opened here, because its writer would begin to write.
    if not os.access(path, os.R_OK):
        raise UsageError(
            f"{source} cannot be read: permission denied", hint=f"chmod +r {typeable(source)}"
        )


def read_dialogues(
    paths: Sequence[str],
    data_config: DataConfig,
    omissions: Sequence[Omissions] | None = None,
    open_raw: OpenRaw | None = None,
) -> Generator[Dialogue, None, None]:
    """Yield the dialogues of all files; raise `DataError` at the first line that is not a dialogue.

    Dialogues that the data excludes from training are left out. ``omissions``, one for each file,
    count them and everything else that is not trained on.
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
    """Yield the number (from 1) and the bytes of every line that is not blank, without its end."""
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

    ``source`` is a path (.gz and .zst are unpacked) or ``-``. If a line or the rest of the file is
    unreadable, the problem goes to ``found``. A file that cannot be opened raises `UsageError`.
    """
    check_source(source)
    number = 0
    try:
        with open_unpacked(source, open_raw) as (packed, text):
            unfit = recognise_compression(packed.peek(_HEAD_BYTES), Path(source).suffix.lower())
            unfit = unfit or recognise_content(text.peek(BUFFER_BYTES), _inner_suffix(source))
            if unfit is not None:
                found(at_line(unfit, source, 1))
                return
            position = packed.tell if source != STDIN and packed.seekable() else None
            for block in LineCutter(source, found, max_line_bytes).blocks(text, position):
                number = int(block.numbers[-1])
                yield block
    except WindowError:
        message = "the file was compressed with a window of more than 128 MiB"
        found(at_line(Problem("large-window", message), source, number + 1))
    except DAMAGED as error:
        message = f"the compressed data cannot be unpacked: {_reason(error)}"
        found(at_line(Problem("damaged-file", message), source, number + 1))
    except OSError as error:
        message = f"{source} cannot be read after line {number}: {_reason(error)}"
        raise UsageError(message) from None


def _read_line(raw: bytes, file: str, line: int, data_config: DataConfig) -> LineReading | None:
    def refuse_here(problem: Problem) -> None:
        refuse(place(problem, file, line, raw))

    return read_value(decode(raw, refuse_here), data_config, refuse_here)


def _inner_suffix(source: str) -> str:
    """Return the suffix of the unpacked text: .jsonl of train.jsonl.gz."""
    suffixes = [suffix.lower() for suffix in Path(source).suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in (".gz", ".zst")), "")


def _similar(path: Path) -> str:
    """Return a hint for a file that does not exist: another name, or where convo looked."""
    if path.is_symlink():
        return f"it is a link to {path.readlink()}, which does not exist"
    if hint := how_to_get(path):
        return hint
    if meant := similar_path(path):
        return f"did you mean {meant}?"
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist"
    return f"check the name; convo looked in {path.parent.absolute()}"


def _reason(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return reason or str(error) or type(error).__name__
