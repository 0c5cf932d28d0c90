"""CPUs that this process may use."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path


def num_cpus() -> int:
    """Return the number of CPUs that the affinity of this process and its container allow."""
    number = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        number = min(number, -(-int(quota) // int(period)))  # "max" is not a number
    return number
