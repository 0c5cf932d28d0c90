"""Stop requests: SIGINT, SIGTERM, SIGHUP or SIGUSR1 stops a command at the next safe point.

A thread answers the first signal at once, also while native code keeps Python's own handlers
waiting. A second signal ends the process at once, unless it is a hangup, because a closing terminal
can send several (from shell and system). A command listens before torch is imported.
"""

from __future__ import annotations

import _thread
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from convo_cli.errors import StoppedError
from convo_cli.interrupts import Interrupt, is_stopping, silencing_interrupts
from convo_cli.world import seat_in

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
_HANGUP: int | None = getattr(signal, "SIGHUP", None)
_PATIENCE = 0.3
"""Seconds before a request that interrupts the work is answered, and before the next attempt."""
_WRITING = 2.0
"""Seconds in which the answer is written, at most, before an error message may follow it."""
at_leave: list[Callable[[], object]] = []
"""Functions for `leave`, called in any thread, such as one that restores the terminal's modes."""

STEP, UNSAVED = "stopping after this step", "leave without saving"
"""Answers while a run takes steps."""


@dataclass(frozen=True)
class _Stage:
    """The work in progress, and the answer to a request to stop it."""

    answer: str
    second: str
    """The effect of a second signal."""
    may_interrupt: bool


class StopRequest:
    """A request to stop, and the signal that made it."""

    def __init__(self, numbers: frozenset[int]) -> None:
        self.signal_number: int | None = None
        self._numbers = numbers
        self._asked_in: _Stage | None = None
        self._has_interrupted = False
        self._is_reminder = False
        self._stage = _Stage(STEP, UNSAVED, False)
        seat = seat_in()
        # One of several processes may get a request twice, directly and from its launcher, which
        # ends all of them if the user insists. Rank 0 answers for all.
        self._may_leave = seat is None or seat.size == 1
        self._is_silent = seat is not None and seat.rank > 0

    @property
    def is_set(self) -> bool:
        return self.signal_number is not None

    @contextmanager
    def interrupting(self, message: str, *, hint: str | Callable[[], str] = "") -> Iterator[None]:
        """Interrupt the block at once on a stop request, with a StoppedError of this message.

        Only for work that may be interrupted anywhere: reading, downloading, waiting, filling a
        cache. ``hint`` may be a function, called after the interrupt.
        """
        before = self._stage
        try:
            self._stage = _Stage("stopping", "leave at once", True)
            if self.is_set:
                raise Interrupt
            yield
            self._stage = before
        except StoppedError:  # of a block inside this one, whose stage stays
            raise
        except BaseException as error:
            # Library code may turn an Interrupt into another error, as numpy does in its import.
            if not self._has_interrupted and not isinstance(error, KeyboardInterrupt):
                self._stage = before
                raise
            # The stage stays, because the answer may still be due.
            advice = hint if isinstance(hint, str) else hint()
            number = self.signal_number or signal.SIGINT
            raise StoppedError(number, message, hint=advice or None) from None

    @contextmanager
    def finishing(self, answer: str, *, second: str = "leave at once") -> Iterator[None]:
        """Let the block finish before a stop; ``answer`` tells the user what is finished first."""
        before, self._stage = self._stage, _Stage(answer, second, False)
        try:
            yield
        finally:
            self._stage = before

    @contextmanager
    def without_ctrl_c(self) -> Iterator[None]:
        """Leave Ctrl-C to the block, which gets a KeyboardInterrupt each time."""
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        wakeup = signal.set_wakeup_fd(-1)  # the thread would count each Ctrl-C
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
            signal.signal(signal.SIGINT, handler)

    def handle(self, signal_number: int, frame: FrameType | None) -> None:
        """Handle a signal in the main thread, when Python runs there again."""
        if self._is_reminder:
            self._is_reminder = False
            if self._stage.may_interrupt and not is_stopping(sys.exc_info()[1]):
                raise Interrupt
            return
        if self.signal_number is not None:
            if signal_number != _HANGUP and self._may_leave:
                leave(signal_number)  # if the thread could not
            return
        self.signal_number = signal_number
        self._asked_in = self._stage  # the thread may run only when this stage is over
        if self._stage.may_interrupt:
            self._has_interrupted = True
            raise Interrupt

    def watch(self, arrived: socket.socket) -> None:
        """Answer the first signal and leave at the second; a thread, because handlers may wait."""
        with arrived:
            if (first := self._next(arrived)) is None:
                return
            if is_answered := not (self._asked_in or self._stage).may_interrupt:
                self._answer(first)
            arrived.settimeout(_PATIENCE)
            while True:
                try:
                    second = self._next(arrived, but=_HANGUP)
                    if second is None or self._may_leave:
                        break
                except TimeoutError:
                    if not is_answered:
                        self._answer(first)
                        is_answered = True
                    self._remind(arrived)
            if second is not None:
                leave(second)

    def _remind(self, arrived: socket.socket) -> None:
        """Interrupt the main thread again: library code may have swallowed the exception.

        For example in `__del__`, or with a bare ``except`` around an import.
        """
        if self._has_interrupted and self._stage.may_interrupt:
            self._is_reminder = True
            _thread.interrupt_main(signal.SIGTERM)
            arrived.setblocking(False)
            with suppress(BlockingIOError):
                while arrived.recv(1) == bytes([_HANGUP or 0]):
                    pass  # what comes next was sent by interrupt_main
            arrived.settimeout(_PATIENCE)

    def _next(self, arrived: socket.socket, but: int | None = None) -> int | None:
        """Wait for a signal, but not this one; None at the end of the block that listens."""
        while received := arrived.recv(1):
            if received[0] in self._numbers and received[0] != but:
                return received[0]
        return None

    def _answer(self, number: int) -> None:
        stage = self._asked_in or self._stage
        if self._is_silent:
            return
        if number == signal.SIGINT:
            _say(f"{stage.answer}; press Ctrl-C again to {stage.second}")
        else:
            _say(f"{signal.Signals(number).name}: {stage.answer}")


def _write(line: str) -> None:
    with suppress(OSError, ValueError):
        # The terminal has just echoed ^C on the current line.
        sys.stderr.write(f"\n{line}\n" if sys.stderr.isatty() else f"{line}\n")
        sys.stderr.flush()


_current: StopRequest | None = None
_say: Callable[[str], None] = _write


@contextmanager
def answering(say: Callable[[str], None]) -> Iterator[None]:
    """Write the answer to a stop request with ``say``, from another thread, inside the block.

    For a view that redraws lines of the terminal.
    """
    global _say
    before, _say = _say, say
    try:
        yield
    finally:
        _say = before


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Collect stop requests inside the block; the handlers before it are restored after it.

    A block inside another one is part of it.
    """
    global _current
    if _current is not None:
        yield _current
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)  # as nohup requires
    request = StopRequest(frozenset(numbers))
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    (watcher := threading.Thread(target=request.watch, args=(ours,), daemon=True)).start()
    before = {number: signal.signal(number, request.handle) for number in numbers}
    fd, hook = theirs.fileno(), sys.unraisablehook
    wakeup = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    sys.unraisablehook = silencing_interrupts(hook, lambda: request.is_set)
    _current = request
    try:
        yield request
    finally:
        _current = None
        if not request.is_set:  # else the error that ends the command still holds such objects
            sys.unraisablehook = hook
        signal.set_wakeup_fd(wakeup)
        theirs.close()
        for number, handler in before.items():
            signal.signal(number, handler)
        if request.is_set:
            watcher.join(_WRITING)  # so that the answer comes before the outcome


def leave(signal_number: int) -> None:
    """End the process at once, with a terminal whose cursor is visible."""
    for restore in at_leave:
        restore()
    if os.isatty(2):
        os.write(2, b"\x1b[?25h\n")  # a live view may have hidden the cursor
    os._exit(128 + signal_number)
