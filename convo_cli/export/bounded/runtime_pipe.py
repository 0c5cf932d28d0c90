"""Pipe to the runtime process: lines of JSON, with limits of time and size.

The process may crash, hang, print or answer anything: the result is one RuntimeFailedError.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread, Timer
from typing import IO, cast

from convo_cli.cpus import num_cpus
from convo_cli.errors import CheckpointError
from convo_cli.export.bounded.runtime_process import OUT_OF_MEMORY, Limits
from convo_cli.wording import quoted

# With the import path of this process, which holds nothing from the working folder.
_START = (
    "import sys; sys.path[:] = sys.argv[1:]; "
    "from convo_cli.export.bounded.runtime_process import main; main()"
)
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",  # the checkpoint's replies are computed on the CPU too
    "HF_HUB_OFFLINE": "1",
    "MALLOC_ARENA_MAX": "2",  # an arena for each thread would count towards the memory limit
    "PYTHONDONTWRITEBYTECODE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "USE_HUB_KERNELS": "0",
}
_SETTINGS = ("CONVO_", "CT2_", "GGML_", "HF_", "LLAMA_", "ORT_", "PYTHON", "TRANSFORMERS_")
"""Beginnings of variables that change what Python or a runtime does."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
MAX_ANSWER_BYTES = 2**25
_MAX_ERROR_BYTES = 2000
_POLL_SECONDS = 0.2
_SECONDS_TO_END = 1.0


class RuntimeFailedError(CheckpointError):
    """The runtime cannot open the export, or does not answer."""


class RuntimePipe:
    """A new runtime process, until `close`."""

    def __init__(self, limits: Limits, seconds: float) -> None:
        """Start the process, which ends after so many seconds."""
        self._limits, self._seconds = limits, seconds
        self._stderr = b""
        self._is_late = False
        self._lock = Lock()
        self._lines = SimpleQueue[bytes]()
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-W", "ignore", "-c", _START, *filter(None, sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            cwd=sys.prefix,  # a runtime may load plugins from the working folder
            start_new_session=True,  # so that Ctrl-C reaches only this process
        )
        for target in (self._read_answers, self._read_errors):
            Thread(target=target, daemon=True).start()
        self._timer = Timer(seconds, self._end_late)
        self._timer.daemon = True
        self._timer.start()

    def close(self) -> None:
        """End the process and its children."""
        self._timer.cancel()
        self._kill()
        self._popen.wait()
        with suppress(OSError):
            cast(IO[bytes], self._popen.stdin).close()

    def send(self, request: Mapping[str, object]) -> None:
        """Send a request."""
        stdin = cast(IO[bytes], self._popen.stdin)
        with suppress(BrokenPipeError):  # the missing answer says why
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()

    def receive(self) -> bytes:
        """Return the next answer; RuntimeFailedError if there is none, or only a part of one."""
        line, has_ended = b"", False
        while True:
            try:
                line = self._lines.get(timeout=_SECONDS_TO_END if has_ended else _POLL_SECONDS)
                break
            except Empty:
                if has_ended:  # a child of the process holds its pipe open
                    break
                has_ended = self._popen.poll() is not None
        if not line.endswith(b"\n"):
            raise self._ended(len(line))
        return line

    def _read_answers(self) -> None:
        stdout = cast(IO[bytes], self._popen.stdout)
        with suppress(OSError, ValueError), stdout:
            while line := stdout.readline(MAX_ANSWER_BYTES + 1):
                self._lines.put(line)
                if not line.endswith(b"\n"):
                    break
        self._lines.put(b"")

    def _read_errors(self) -> None:
        stderr = cast(IO[bytes], self._popen.stderr)
        with suppress(OSError, ValueError), stderr:
            while block := os.read(stderr.fileno(), 2**16):
                with self._lock:
                    self._stderr = (self._stderr + block)[-_MAX_ERROR_BYTES:]

    def _ended(self, num_bytes: int) -> RuntimeFailedError:
        """Return why there is no answer."""
        if num_bytes > MAX_ANSWER_BYTES:
            return RuntimeFailedError(f"its answer has more than {MAX_ANSWER_BYTES:,} bytes")
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(_SECONDS_TO_END)  # its own exit code says why it ended
        self._kill()
        code = self._popen.wait()
        if self._is_late:
            reason = f"takes more than {self._seconds:,.0f} s"
        elif code == -getattr(signal, "SIGXCPU", 0):
            reason = f"takes more than {self._limits.cpu_seconds:,} s of CPU time"
        elif code == OUT_OF_MEMORY:
            reason = f"takes more than {self._limits.memory_bytes // 2**20:,} MiB of memory"
        else:
            reason = f"ends without an answer ({_exit(code)})"
        with self._lock:
            said = self._stderr.decode(errors="replace").strip().splitlines()[-3:]
        return RuntimeFailedError(
            "the process that opens it " + reason + (f": {shown(' '.join(said))}" if said else "")
        )

    def _end_late(self) -> None:
        self._is_late = True
        self._kill()

    def _kill(self) -> None:
        """Kill the process and its children, which are in its process group."""
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.kill()


def _exit(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def shown(text: str) -> str:
    """Return a text of the runtime for a message: bounded, on one line, printable."""
    return quoted(text, 500)[1:-1]


def _environment() -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.upper().startswith(_SETTINGS)
    }
    threads = {name: _threads(os.environ.get(name)) for name in _THREADS}
    return {**kept, **threads, **_ENVIRONMENT}


def _threads(stated: str | None) -> str:
    """Return the number of threads that the user states, at most the CPUs of this process."""
    most = num_cpus()
    return str(min(int(stated), most)) if stated and stated.isdecimal() else str(most)
