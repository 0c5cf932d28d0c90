"""Standard streams of the process: all are open and accept any text, and stderr survives the loss
of its reader.
"""

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
            stream.reconfigure(
                errors="replace"
            )  # a character that the terminal cannot show becomes ?
    sys.stderr = LastingStream(sys.stderr)


class LastingStream:
    """A text stream that outlives its reader: once the terminal or the pipe is closed, output is
    discarded.

    So a run outlives its terminal. All other methods and attributes are those of the wrapped
    stream.
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
    """Redirect a descriptor to the null device, so that further and buffered output is
    discarded.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _open_closed_streams() -> None:
    """Replace standard streams that were closed (``>&-``) by the null device.

    Otherwise the next opened file gets the stream's descriptor, and a library would print into that
    file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(
                os.devnull, os.O_RDWR
            )  # gets the lowest free number, that of the stream
            os.set_inheritable(descriptor, True)
            setattr(sys, name, open(descriptor, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115
