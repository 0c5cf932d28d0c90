"""Memory that a call allocates, and commands that may allocate only so much."""

from __future__ import annotations

import resource
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

from tests.commands import Result
from tests.forks import start_fork

Value = TypeVar("Value")


def with_peak(call: Callable[[], Value]) -> tuple[Value, int]:
    """Return the result of a call, and the most bytes that were allocated at once during it."""
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def run_limited(folder: Path, *arguments: object, limit: int | None = None) -> Result:
    """Run a command that can allocate ``limit`` MiB more than it has."""
    process = start_fork(folder, *arguments)
    if limit is not None:
        used = psutil.Process(process.pid).memory_info().data
        size = used + (limit << 20)
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (size, size))
    out, err = process.communicate(timeout=300)
    return Result(process.returncode, out.decode(), err.decode())
