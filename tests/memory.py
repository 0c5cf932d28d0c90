"""Memory that a call allocates."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def with_peak(call: Callable[[], Result]) -> tuple[Result, int]:
    """Return the result of a call, and the most bytes that were allocated at once during it."""
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
