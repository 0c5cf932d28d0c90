"""Keys that arrive during a reply: they are not shown, and wait for the next prompt.

Ctrl-C stops a reply; anywhere else between two prompts it does nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from convo_cli.signals import at_leave

termios: Any
try:
    import termios
except ImportError:  # Windows
    termios = None


class CtrlC:
    """Handler of SIGINT that raises KeyboardInterrupt once, and only inside `stopping`.

    Otherwise a second Ctrl-C would interrupt the code that keeps the stopped reply.
    """

    def __init__(self) -> None:
        self._may_stop = False

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Let Ctrl-C stop the block."""
        self._may_stop = True
        try:
            yield
        finally:
            self._may_stop = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self._may_stop:
            self._may_stop = False
            raise KeyboardInterrupt


class Keyboard:
    """The modes of the terminal for what is typed between two prompts.

    With ``is_raw``, keys wait as they were pressed, for a line editor, which sets its own modes;
    otherwise the terminal collects lines.
    """

    def __init__(self, *, is_raw: bool) -> None:
        self._is_raw = is_raw
        self._terminal = sys.stdin.fileno()
        self._normal: list[Any] = []

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Show no keys in the block. The modes are restored at its end, and during Ctrl-Z."""
        if termios is None:  # Windows, where the console shows no keys between prompts
            yield
            return
        self._normal = termios.tcgetattr(self._terminal)
        suspending = signal.getsignal(signal.SIGTSTP)
        if suspending is signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self._suspend)
        at_leave.append(self._restore_at_once)
        try:
            self._set(self._silent())
            yield
        finally:
            at_leave.remove(self._restore_at_once)
            signal.signal(signal.SIGTSTP, suspending)
            self._set(self._normal)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show keys in the block, inside `silenced`."""
        self._set(self._normal)
        try:
            yield
        finally:
            self._set(self._silent())

    def _silent(self) -> list[Any]:
        modes = list(self._normal)
        if modes:
            modes[3] &= ~termios.ECHO
            modes[3] |= termios.NOFLSH  # Ctrl-C must not discard keys that wait
            if self._is_raw:
                modes[0] &= ~termios.ICRNL
                modes[3] &= ~(termios.ICANON | termios.IEXTEN)
        return modes

    def _set(self, modes: list[Any]) -> None:
        if modes:
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._terminal, termios.TCSANOW, modes)

    def _restore_at_once(self) -> None:
        """Restore the modes in any thread, unless the terminal belongs to another process now."""
        with suppress(OSError):
            if os.tcgetpgrp(self._terminal) == os.getpgrp():
                self._set(self._normal)

    def _suspend(self, number: int, frame: FrameType | None) -> None:
        now = termios.tcgetattr(self._terminal)
        self._set(self._normal)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)  # returns after `fg`
        signal.signal(signal.SIGTSTP, self._suspend)
        self._set(now)
