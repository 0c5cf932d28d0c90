"""Long native work in a thread, so that the main thread hears signals meanwhile and can leave the work behind.

Nothing waits for a thread that was left behind: it ends with the process, or with its work.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import NoReturn, TypeVar, cast

T = TypeVar("T")

_NAME = "convo-background"
_SECONDS = 0.1  # between looks at signals, where these do not interrupt waiting (Windows)
_STOPPED = {128 + getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)}
"""Exit codes of a process that a signal ended."""


def in_background(work: Callable[[], T]) -> T:
    """What ``work`` returns or raises; an exception of a signal handler ends the waiting, not the work."""
    return _result(_begin(work))


def one_ahead(works: Iterable[Callable[[], T]]) -> Iterator[T]:
    """What each of the works returns: one runs in a thread while the caller uses the result of the one before it."""
    running: Future[T] | None = None
    for work in works:
        done = [] if running is None else [_result(running)]
        running = _begin(work)
        yield from done
    if running is not None:
        yield _result(running)


def _begin(work: Callable[[], T]) -> Future[T]:
    future = Future[T]()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name=_NAME, daemon=True).start()
    return future


def _result(future: Future[T]) -> T:
    while not wait([future], timeout=_SECONDS).done:
        pass
    return future.result()


def leave(code: object) -> NoReturn:
    """End the process with this exit code: after a signal at once, else when work that was left behind is done.

    At once is without Python's own end, which takes a second with torch, and would unwind a thread in SentencePiece's
    code: that aborts the process.
    """
    if code in _STOPPED:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(cast("int", code))
    for thread in threading.enumerate():
        if thread.name == _NAME:
            thread.join()
    raise SystemExit(code)
