"""SIGINT, SIGTERM and SIGUSR1 ask a run to save and stop at the next safe point; a second one leaves at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")


class StopRequest:
    """Whether and by which signal a stop was asked for."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    @property
    def is_set(self) -> bool:
        return self.signal_number is not None

    def _handle(self, signal_number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            if os.isatty(2):
                os.write(2, b"\x1b[?25h\n")  # a live view may have hidden the cursor, and nobody else will show it
            os._exit(128 + signal_number)
        self.signal_number = signal_number


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Collect stop requests inside the block; the handlers before it are restored after it."""
    request = StopRequest()
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.signal(number, request._handle) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
