"""Client of the bounded process, which renders chat templates and tries foreign files under limits.

The process runs `convo_cli.text.bounded.process`. It is started early, so that it imports
transformers while this process imports torch, and again after a request has ended it.
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
# With the import path of this process, so that the other imports the same convo and nothing from
# the working folder.
_START = (
    "import sys; sys.path[:] = sys.argv[1:]; from convo_cli.text.bounded.process import "
    "main; "
    "main()"
)
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
"""Threads reserve memory, and the limit of memory counts what is reserved."""


class EndedError(Exception):
    """The bounded process ended before it answered."""

    def __init__(self, returncode: int) -> None:
        self.returncode = returncode
        super().__init__(f"exit code {returncode}")

    def reason(self, limits: Limits, unit: str = "") -> str:
        """Say why the process ended, as words that continue a sentence; the limits held for each
        ``unit``.
        """
        if self.returncode == -getattr(signal, "SIGPROF", 0):
            return f"takes more than {limits.cpu_seconds:.0f} s of CPU time{unit}"
        if self.returncode == OUT_OF_TIME:
            return f"takes more than {REQUEST_SECONDS:.0f} s of CPU time for a few dialogues"
        if self.returncode in (
            OUT_OF_MEMORY,
            -getattr(signal, "SIGABRT", 0),
        ):  # native code aborts without memory
            return f"takes more than {limits.memory_bytes // 2**20} MiB of memory{unit}"
        return f"breaks the process that reads it (exit code {self.returncode})"


def start_bounded_process() -> None:
    """Start the process, without waiting until it can be asked."""
    _process()


def ask(task: bytes, request: bytes) -> bytes:
    """Return the answer to a request, both a line of JSON; EndedError if the process ended without
    one.
    """
    return _process().ask(task + b" " + request + b"\n")


class _Process:
    """The bounded process; it runs as long as this one, or until a request ends it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._starter = os.getpid()
        self._is_ready = False
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD},
            start_new_session=True,  # Ctrl-C must reach only this process
        )
        atexit.register(self._kill)

    @property
    def is_ours(self) -> bool:
        """Return whether the process runs and was started by this process, not by the parent of a
        fork.
        """
        return self._starter == os.getpid() and self._popen.poll() is None

    def ask(self, request: bytes) -> bytes:
        with self._lock:
            assert self._popen.stdin, "it was opened as a pipe"
            try:
                if not self._is_ready:
                    self._is_ready = self._read() == b"ready\n"
                    if not self._is_ready:
                        raise RuntimeError(
                            f"the process for foreign files ended with {self._end()} at its start"
                        )
                self._popen.stdin.write(request)
                self._popen.stdin.flush()
                answer = self._read()
            except BrokenPipeError:
                answer = b""
            except (
                BaseException
            ):  # after a signal, the answer to this request must not be read as that of the next
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
            self._popen.wait(_SECONDS_TO_END)  # then its exit code says why it ended
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
