"""Standard streams of the process.

All are open and accept any text, a run survives the loss of their readers and disks, and a terminal
has a size in which text can be shown.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from convo_cli.errors import DiskError, UsageError

if TYPE_CHECKING:
    from typing import Any, TextIO

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a write to a full disk.

Writes to files raise DiskError, so an OSError without a file name is that of a standard stream.
"""
_SIZES = ("COLUMNS", "LINES", "TERMINAL_WIDTH")
"""Environment variables with a size of the terminal; typer reads the last one."""
_MAX_DIGITS = 4
_SIGPIPE = 13  # missing in Python's `signal` on Windows
_was_closed: set[str] = set()


def prepare_streams() -> None:
    """Make stdin, stdout and stderr safe to use; call it once, before the first output."""
    _open_closed_streams()
    _remove_impossible_sizes()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A character that the terminal cannot show becomes ?.
            stream.reconfigure(errors="replace")
    sys.stderr = LastingStream(sys.stderr)


def require_stdin(consequence: str) -> None:
    """Raise UsageError if stdin was closed (``<&-``), because a command would see an empty file."""
    if "stdin" in _was_closed:
        hint = "redirect stdin from a file or a pipe, or remove <&-"
        raise UsageError(f"stdin is closed, so {consequence}", hint=hint)


def is_interactive() -> bool:
    """Return whether stdin and an output stream are terminals."""
    return sys.stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty())


@contextmanager
def stdout_errors() -> Iterator[None]:
    """Flush stdout after the block; if a write to it fails, end the process with an exit code.

    The code is that of SIGPIPE if the reader is gone (`convo … | head`), and that of DiskError if
    the disk is full.
    """
    try:
        yield
        sys.stdout.flush()
        return
    except (BrokenPipeError, SystemExit) as stop:
        # typer exits with 1 here, which is convo's code for a bug.
        if not any(isinstance(error, BrokenPipeError) for error in (stop, stop.__context__)):
            raise
        code = 128 + _SIGPIPE  # as the shell reports it
    except OSError as error:
        if not _is_of_stdout(error):
            raise
        code = DiskError.exit_code
        hint = "free some space, or write the output elsewhere"
        sys.stderr.write(f"error: stdout: {error.strerror}\nhint: {hint}\n")
    discard_output(1)  # prevents an error message of the interpreter at exit
    sys.exit(code)


@contextmanager
def finished(outcome: str) -> Iterator[None]:
    """Print the result of finished work in the block.

    If stdout cannot be written, a warning states the ``outcome``: the work is done.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError) or not _is_of_stdout(error):
            raise
        discard_output(1)
        sys.stderr.write(f"warning: stdout: {error.strerror}; {outcome}\n")


def _is_of_stdout(error: OSError) -> bool:
    return error.errno in _FULL and error.filename is None


class LastingStream:
    """A text stream that a run outlives: output is discarded once its terminal or pipe is closed.

    While its disk is full, output stays in the stream's buffer, and what does not fit is lost. All
    other methods and attributes are those of the wrapped stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        if error.errno not in _FULL:
            discard_output(self._stream.fileno())


def discard_output(descriptor: int) -> None:
    """Redirect a descriptor to the null device, which discards buffered and further output."""
    with suppress(OSError):  # no descriptor is free
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


def _remove_impossible_sizes() -> None:
    """Unset sizes that are not a number from 1 to 9999: rich prints nothing into 0 columns."""
    for name in _SIZES:
        value = os.environ.get(name, "1")
        is_number = value.isdecimal() and len(value) <= _MAX_DIGITS
        if not is_number or int(value) == 0:
            del os.environ[name]


def _open_closed_streams() -> None:
    """Replace standard streams that were closed (``>&-``) by the null device.

    Otherwise the next opened file gets the stream's descriptor, and a library would print into that
    file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _was_closed.add(name)
            # The lowest free number, which is that of the stream, unless a file has it already.
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            stream = open(descriptor, "w" if number else "r", encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)
