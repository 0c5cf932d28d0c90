"""The standard streams of the process: all open, able to show any text, and stderr independent of its reader."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, TextIO


def prepare_streams() -> None:
    """Make stdin, stdout and stderr safe to use; call it once, before the first output."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows ? instead
    sys.stderr = LastingStream(sys.stderr)


class LastingStream:
    """A text stream that outlives its reader: once the terminal or the pipe is closed, output is discarded.

    A run does not end because its terminal does. All other methods and attributes are those of the wrapped stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            discard_output(self._stream.fileno())
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            discard_output(self._stream.fileno())


def discard_output(descriptor: int) -> None:
    """Send further output of a descriptor to the null device, and with it what its stream still buffers."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _open_closed_streams() -> None:
    """Let the null device stand for standard streams that were closed (``>&-``).

    Otherwise the next file that is opened takes the stream's number, and what a library prints goes into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is that of the stream
            os.set_inheritable(descriptor, True)
            setattr(sys, name, open(descriptor, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115
