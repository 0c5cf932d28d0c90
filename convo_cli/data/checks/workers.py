"""Worker processes that read the blocks of large files on all CPUs.

Results do not depend on them: if a worker fails, this process reads the block, and raises the same
error. A worker ends when its stdin does, so it never outlives the command.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, Any, NamedTuple, cast

from convo_cli.data.checks.block_reader import BlockReader
from convo_cli.data.checks.exact import LineRules
from convo_cli.data.checks.statistics import BlockStatistics

MAX_WORKERS = 8
"""One process can cut blocks and add up results for about this many workers."""
# With the import path of this process: a worker imports the same convo, and nothing from the
# working directory.
_START = (
    "import sys; sys.path[:] = sys.argv[1:]; from convo_cli.data.checks.workers import work; work()"
)
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class _Speakers(NamedTuple):
    user: tuple[str, ...]
    assistant: tuple[str, ...]
    system: tuple[str, ...]
    keep_names: bool


class _Columns(NamedTuple):
    turns: str | None
    speaker: str | None
    text: str | None
    user: str | None
    assistant: str | None
    system: str | None
    history: str | None


class _Config(NamedTuple):
    """The part of a `DataConfig` that a worker needs; the whole would import pydantic (0.2 s)."""

    speakers: _Speakers
    columns: _Columns
    first_speaker: str
    reasoning: str | None


class Workers:
    """One worker per CPU. Each has a thread here, because a write to a pipe blocks until a read."""

    def __init__(self, rules: LineRules, max_problems: int, number: int) -> None:
        """Start the workers, and set `has_failed` if the system allows no more processes."""
        self.has_failed = False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._free = SimpleQueue[subprocess.Popen[bytes]]()
        self._is_ready = False
        self._threads = ThreadPoolExecutor(number)
        data, names = rules.data_config, rules.data_config.speakers
        speakers = _Speakers(**names.model_dump())
        columns = _Columns(**data.columns.model_dump())
        config = _Config(speakers, columns, data.first_speaker, data.reasoning)
        try:
            for _ in range(number):
                process = _start()
                self._processes.append(process)
                self._threads.submit(self._ask, process, ((config, rules.train_on), max_problems))
        except (OSError, RuntimeError):
            self.has_failed = True

    @property
    def is_ready(self) -> bool:
        """Return whether a worker is ready (after about 0.2 s) and none has failed."""
        self._is_ready = self._is_ready or not self._free.empty()
        return self._is_ready and not self.has_failed

    def read(self, data: bytes) -> Future[BlockStatistics | None]:
        """Read whole lines when a worker is free; the result is None if the worker fails."""
        return self._threads.submit(lambda: self._ask(self._free.get(), data))

    def _ask(self, process: subprocess.Popen[bytes], request: Any) -> Any:
        """Send a request to a worker and return its answer; then mark the worker as free."""
        requests, answers = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
        try:
            pickle.dump(request, requests, protocol=5)
            requests.flush()
            return pickle.load(answers)
        except Exception:  # noqa: BLE001  (after any failure the block is read in this process)
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
    """Answer requests on stdin until it ends: first the rules, then blocks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Windows a new session does not block Ctrl-C
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    with suppress(EOFError):
        rules, max_problems = pickle.load(requests)
        reader = BlockReader(LineRules(*rules), max_problems)
        answer = None
        while True:
            pickle.dump(answer, answers, protocol=5)
            answers.flush()
            answer = reader.read(pickle.load(requests))
