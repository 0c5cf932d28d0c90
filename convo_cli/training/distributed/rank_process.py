"""A process of a run on several devices: it joins the others, and stops if its launcher ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from convo_cli.signals import leave
from convo_cli.world import World, seat_in

LISTENER, LIFELINE = "CONVO_STORE_FD", "CONVO_LAUNCHER_FD"
"""Environment variables with file descriptors: the socket of the store, and a pipe that closes
when the launcher ends."""


def is_launched() -> bool:
    """Return whether `launch` started this process; it has made the checks and announced them."""
    return LIFELINE in os.environ


@contextmanager
def world_of(device: str) -> Iterator[World]:
    """Join the world of this process; a process on its own imports nothing for it.

    Errors are those of `convo_cli.training.distributed.joining.joined`.
    """
    has_met = threading.Event()
    if is_launched():
        _end_with_launcher(int(os.environ[LIFELINE]), has_met)
    seat = seat_in()
    if seat is None or seat.size == 1:
        has_met.set()
        yield World()
        return
    from convo_cli.training.distributed.joining import joined

    with joined(seat, device) as world:
        has_met.set()
        yield world


def _end_with_launcher(lifeline: int, has_met: threading.Event) -> None:
    """Stop, as after a SIGTERM, when the launcher ends; it holds the other end of the pipe."""

    def watch() -> None:
        with suppress(OSError):
            os.read(lifeline, 1)
        if not has_met.is_set():
            leave(signal.SIGTERM)  # torch waits for the store in native code, for minutes
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
