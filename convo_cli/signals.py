"""SIGINT, SIGTERM, SIGHUP and SIGUSR1 ask a run to save and stop at the next safe point; a second
one leaves at once.

This module imports nothing heavy, because a command listens before torch is imported.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from convo_cli.errors import StoppedError

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


class StopRequest:
    """A request to stop, and the signal that made it."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._may_interrupt = False

    @property
    def is_set(self) -> bool:
        return self.signal_number is not None

    @contextmanager
    def interrupting(self, message: str, *, hint: str) -> Iterator[None]:
        """Interrupt the block at once on a stop request, with a StoppedError of this message.

        Only for work that may be interrupted anywhere: reading, downloading, waiting, filling a
        cache.
        """
        try:
            self._may_interrupt = True
            if self.is_set:
                raise KeyboardInterrupt
            yield
        except KeyboardInterrupt:
            raise StoppedError(self.signal_number or signal.SIGINT, message, hint=hint) from None
        finally:
            self._may_interrupt = False

    def _handle(self, signal_number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            _leave(signal_number)  # if the thread could not
        self.signal_number = signal_number
        if self._may_interrupt:
            raise KeyboardInterrupt


_current: StopRequest | None = None


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Collect stop requests inside the block; the handlers before it are restored after it.

    A block inside another one is part of it.
    """
    global _current
    if _current is not None:
        yield _current
        return
    request = StopRequest()
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)  # as nohup requires
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    threading.Thread(
        target=_leave_at_the_second, args=(ours, frozenset(numbers)), daemon=True
    ).start()
    before = {number: signal.signal(number, request._handle) for number in numbers}
    wakeup_before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    _current = request
    try:
        yield request
    finally:
        _current = None
        signal.set_wakeup_fd(wakeup_before)
        theirs.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_at_the_second(arrived: socket.socket, numbers: frozenset[int]) -> None:
    """End the process at the second signal; a thread, because a handler has to wait for native code
    to return.
    """
    count = 0
    with arrived:
        while received := arrived.recv(1):
            count += received[0] in numbers
            if count == 2:
                _leave(received[0])


def _leave(signal_number: int) -> None:
    if os.isatty(2):
        os.write(2, b"\x1b[?25h\n")  # a live view may have hidden the cursor
    os._exit(128 + signal_number)
