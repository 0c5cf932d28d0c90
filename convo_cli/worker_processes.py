"""Worker processes that call one function on all CPUs, in the order of its arguments.

Results do not depend on them: if a worker fails, this process calls the function itself, and raises
the same error. A worker ends when its stdin does, so it never outlives the command.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, Any, TypeVar, cast

A = TypeVar("A")
R = TypeVar("R")

# With the import path of this process: a worker imports the same convo, and nothing from the
# working directory. No worker needs torch, whose import takes a second.
_START = (
    "import sys; sys.path[:] = sys.argv[1:]; sys.modules['torch'] = None; "
    "from convo_cli.worker_processes import work; work()"
)
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
_AHEAD = 2  # arguments per worker that are read before the first result is needed
_SECONDS = 0.1  # between checks for signals, if they do not interrupt a wait (Windows)


def call_in_workers(
    function: Callable[[A], R], arguments: Iterable[A], number: int
) -> Generator[R, None, None]:
    """Yield the result of the function for each argument, and read a few arguments ahead.

    Without a pickle of the function or of an argument, this process makes the call itself.
    """
    workers = Workers(function, number)
    waiting = deque[tuple[A, Future[tuple[R] | None]]]()

    def first() -> R:
        argument, future = waiting.popleft()
        while not wait([future], timeout=_SECONDS).done:
            pass
        found = future.result()
        return function(argument) if found is None else found[0]

    try:
        for argument in arguments:
            waiting.append((argument, workers.call(argument)))
            if len(waiting) > _AHEAD * number:
                yield first()
        while waiting:
            yield first()
    finally:
        workers.close()


class Workers:
    """Processes that call a function; each has a thread here, because writes to its pipe block."""

    def __init__(self, function: Callable[[Any], object], number: int) -> None:
        """Start the workers, and set `has_failed` if that is not possible."""
        self.has_failed = False
        self._is_ready = False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._free = SimpleQueue[subprocess.Popen[bytes]]()
        self._threads = ThreadPoolExecutor(number)
        try:
            pickled = pickle.dumps(function, protocol=5)
            for _ in range(number):
                process = _start()
                self._processes.append(process)
                self._threads.submit(self._ask, process, pickled)
        # The function has no pickle (a tokenizer in Python), or no more processes are allowed.
        except Exception:  # noqa: BLE001
            self.has_failed = True

    @property
    def is_ready(self) -> bool:
        """Return whether a worker has received the function and none has failed."""
        self._is_ready = self._is_ready or not self._free.empty()
        return self._is_ready and not self.has_failed

    def call(self, argument: Any) -> Future[Any]:
        """Call the function when a worker is free.

        The result is a tuple with one item, or None if the worker fails.
        """

        def ask() -> Any:
            return None if self.has_failed else self._ask(self._free.get(), argument)

        return self._threads.submit(ask)

    def _ask(self, process: subprocess.Popen[bytes], request: Any) -> Any:
        """Send a request to a worker and return its answer; then mark the worker as free."""
        requests, answers = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
        try:
            pickle.dump(request, requests, protocol=5)
            requests.flush()
            return pickle.load(answers)
        except Exception:  # noqa: BLE001  (after any failure this process calls the function)
            self.has_failed = True
            return None
        finally:
            self._free.put(process)

    def close(self) -> None:
        """Kill all workers."""
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            with suppress(OSError), process:  # closes the pipes, and waits
                pass


def _start() -> subprocess.Popen[bytes]:
    executable = sys.executable or ""  # None if Python does not know its own path
    return subprocess.Popen(
        [executable, "-c", _START, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **_ONE_THREAD},
        start_new_session=True,  # so that Ctrl-C reaches only this process
    )


def work() -> None:
    """Answer requests on stdin until it ends: first the function, then arguments."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Windows a new session does not block Ctrl-C
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not touch the answers
    with suppress(EOFError, BrokenPipeError):
        function = pickle.loads(pickle.load(requests))
        answer: Any = None
        while True:
            pickle.dump(answer, answers, protocol=5)
            answers.flush()
            answer = (function(pickle.load(requests)),)
