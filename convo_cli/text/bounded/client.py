"""Client of the bounded process, which renders chat templates and tries foreign files under limits.

The process runs `convo_cli.text.bounded.process`. It starts early, so that it imports transformers
while this process imports torch, and it starts again after a request has ended it.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
from contextlib import suppress
from threading import Lock

from convo_cli.text.bounded.process import OUT_OF_MEMORY, OUT_OF_TIME, REQUEST_SECONDS, Limits

_SECONDS_TO_END = 5.0
_MAX_STARTS = 4
# With the import path of this process: the other imports the same convo, and nothing from the
# working directory.
_START = (
    "import sys; sys.path[:] = sys.argv[1:]; import convo_cli.text.bounded.process as p; p.main()"
)
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
"""Threads reserve memory, which counts towards the memory limit."""


class _AlreadyEndedError(Exception):
    """The process ended before it received a request, which another one can answer."""


class EndedError(Exception):
    """The bounded process ended before it answered."""

    def __init__(self, returncode: int) -> None:
        self.returncode = returncode
        super().__init__(f"exit code {returncode}")

    def reason(self, limits: Limits, unit: str = "") -> str:
        """Return why the process ended, as words that continue a sentence.

        ``unit`` says what the limits apply to, such as " for one dialogue".
        """
        if self.returncode == -getattr(signal, "SIGPROF", 0):
            return f"takes more than {limits.cpu_seconds:.0f} s of CPU time{unit}"
        if self.returncode == OUT_OF_TIME:
            return f"takes more than {REQUEST_SECONDS:.0f} s of CPU time for a few dialogues"
        # Native code without memory aborts.
        if self.returncode in (OUT_OF_MEMORY, -getattr(signal, "SIGABRT", 0)):
            return f"takes more than {limits.memory_bytes // 2**20} MiB of memory{unit}"
        return f"crashes the process that reads it (exit code {self.returncode})"


def start_bounded_process() -> None:
    """Start the process without waiting until it is ready."""
    _process()


def ask(task: bytes, request: bytes) -> bytes:
    """Return the answer to a request, both a line of JSON; EndedError without an answer."""
    line = task + b" " + request + b"\n"
    for _ in range(_MAX_STARTS):
        with suppress(_AlreadyEndedError):
            return _process().ask(line)
    raise RuntimeError("the process for foreign files was killed each time it was started")


class _Process:
    """The bounded process; it runs until a request ends it, or until this process ends."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._starter = os.getpid()
        self._is_ready = False
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD},
            start_new_session=True,  # so that Ctrl-C reaches only this process
        )
        atexit.register(self._kill)

    @property
    def is_ours(self) -> bool:
        """Return whether it runs and this process started it, not the parent of a fork."""
        return self._starter == os.getpid() and self._popen.poll() is None

    def ask(self, request: bytes) -> bytes:
        with self._lock:
            assert self._popen.stdin, "it was opened as a pipe"
            if self._popen.stdin.closed:  # the request of another thread has ended it
                raise _AlreadyEndedError
            try:
                if not self._is_ready:
                    self._is_ready = self._read() == b"ready\n"
                    if not self._is_ready:
                        if (code := self._end()) < 0:  # a signal, not a fault of its own
                            raise _AlreadyEndedError
                        message = f"the process for foreign files did not start (exit code {code})"
                        raise RuntimeError(message)
                self._popen.stdin.write(request)
                self._popen.stdin.flush()
                answer = self._read()
            except BrokenPipeError:
                answer = b""
            except BaseException:
                # The next request must not read the answer to this one.
                self._kill()
                raise
            if not answer.endswith(b"\n"):
                raise EndedError(self._end())
        return answer

    def _read(self) -> bytes:
        assert self._popen.stdout, "it was opened as a pipe"
        return self._popen.stdout.readline()

    def _kill(self) -> None:
        self._popen.kill()
        self._end()

    def _end(self) -> int:
        atexit.unregister(self._kill)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_SECONDS_TO_END)  # its own exit code says why it ended
        self._popen.kill()
        with suppress(BrokenPipeError), self._popen:  # closes the pipes, and waits
            pass
        return self._popen.returncode


_processes: list[_Process] = []
_starting = Lock()


def _process() -> _Process:
    with _starting:
        if not _processes or not _processes[0].is_ours:
            _processes[:] = [_Process()]
        return _processes[0]
