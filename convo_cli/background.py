"""Native work in a background thread, while the main thread works and reacts to signals.

After a signal nothing waits for the thread: it ends with its task or with the process.
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
_SECONDS = 0.1  # between checks for signals, if they do not interrupt a wait (Windows)
_STOPPED = {
    128 + getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
}
"""Exit codes of a process that a signal ended."""


def one_ahead(tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Yield the result of each task; the next one runs in a thread while the caller uses it."""
    running: Future[T] | None = None
    for task in tasks:
        done = [] if running is None else [_wait_for(running)]
        running = _start(task)
        yield from done
    if running is not None:
        yield _wait_for(running)


def _start(task: Callable[[], T]) -> Future[T]:
    future = Future[T]()

    def run() -> None:
        try:
            future.set_result(task())
        except BaseException as error:  # noqa: BLE001 - raised again by `future.result`
            future.set_exception(error)

    threading.Thread(target=run, name=_NAME, daemon=True).start()
    return future


def _wait_for(future: Future[T]) -> T:
    while not wait([future], timeout=_SECONDS).done:
        pass
    return future.result()


def end_process(code: object, *, is_one_of_many: bool = False) -> NoReturn:
    """End the process: at once after a signal, otherwise when all background tasks are done.

    After a signal Python's own shutdown is skipped: it takes a second with torch, and unwinding a
    thread inside native code would abort the process. The same holds for an error in one of the
    processes of a world, whose connections are broken.
    """
    if code in _STOPPED or (is_one_of_many and isinstance(code, int) and code):
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(cast("int", code))
    for thread in threading.enumerate():
        if thread.name == _NAME:
            thread.join()
    raise SystemExit(code)
