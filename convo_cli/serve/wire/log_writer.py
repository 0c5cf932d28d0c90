"""The server's log on stderr, written in a thread, so that a slow reader stops no request."""

from __future__ import annotations

import os
import queue
import threading
from contextlib import suppress

_STDERR = 2
_MAX_LINES = 1000
_SECONDS_TO_CLOSE = 2.0


class LogWriter:
    """Writes lines to stderr in a thread of its own.

    A pipe blocks every write after its reader stops reading. So only this thread waits, and lines
    above the limit are counted instead of written.
    """

    def __init__(self, descriptor: int = _STDERR, max_lines: int = _MAX_LINES) -> None:
        self._descriptor = descriptor
        self._lines: queue.Queue[str | None] = queue.Queue(max_lines)
        self._num_lost = 0
        self._thread = threading.Thread(target=self._run, name="convo-log", daemon=True)
        self._thread.start()

    def write_line(self, line: str) -> None:
        """Write a line soon, from any thread."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._num_lost += 1

    def close(self, seconds: float = _SECONDS_TO_CLOSE) -> bool:
        """Write the remaining lines; return whether it was possible in this time."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            lost, self._num_lost = self._num_lost, 0
            if lost:
                self._write(f"{lost:,} lines of this log were lost, because nothing read it")
            self._write(line)

    def _write(self, line: str) -> None:
        left = f"{line}\n".encode("utf-8", "replace")
        with suppress(OSError):  # closed, or its disk is full: the server continues
            while left:
                left = left[os.write(self._descriptor, left) :]
