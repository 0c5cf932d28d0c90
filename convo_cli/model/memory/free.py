"""Memory that this process can still allocate: the machine's, its cgroup's and its own limits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from convo_cli.errors import OutOfMemoryError
from convo_cli.model.nvml import measured
from convo_cli.report import shown
from convo_cli.world import seat_in

_UNLIMITED = 2**60
"""A cgroup of version 1 without a limit reports a number near 2^63."""
_FILES = {  # limits, use, and page cache that the kernel takes back, by version of the cgroup
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_"),
    2: (("memory.max", "memory.high"), "memory.current", ""),
}


@dataclass(frozen=True)
class Bound:
    """A limit of memory in bytes, and how much of it is in use."""

    limit: int
    used: int


def free_bytes(device: torch.device, num_processes: int = 1) -> int:
    """Return how many bytes this process can still allocate on a device, without swapping.

    On a CPU, ``num_processes`` share the machine and its cgroup.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    shared = min(bound.limit - bound.used for bound in (_machine(), *cgroup_bounds()))
    own = (bound.limit - bound.used for bound in _own_bounds())
    return max(0, min([shared // num_processes, *own]))


def limit_bytes(device: torch.device) -> int:
    """Return how many bytes this process could have on a device if no other program used any."""
    if device.type == "cuda":
        total: int = torch.cuda.get_device_properties(device).total_memory
        return total
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    swap: int = psutil.swap_memory().total
    shared = min(bound.limit for bound in (_machine(), *cgroup_bounds())) + swap
    return min([shared, *(bound.limit for bound in _own_bounds())])


def require_room(num_bytes: int, what: str, hint: str) -> None:
    """Raise OutOfMemoryError if this process cannot hold so many bytes of weights in main memory.

    It is called before they are allocated, because the system would end this process or another.
    """
    seat = seat_in()
    most = measured(lambda: _most_bytes() // (1 if seat is None else seat.local_size))
    if most is not None and num_bytes > most:
        raise OutOfMemoryError(
            f"not enough memory: {what} needs {shown.size(num_bytes)} for its weights in fp32, but "
            f"only {shown.size(most)} are free",
            hint=hint,
        )


def _most_bytes() -> int:
    cpu = torch.device("cpu")
    swap: int = psutil.swap_memory().free
    return min(limit_bytes(cpu), free_bytes(cpu) + swap)


def _machine() -> Bound:
    memory = psutil.virtual_memory()
    return Bound(memory.total, memory.total - memory.available)


def cgroup_bounds(
    membership: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")
) -> list[Bound]:
    """Return the limits of this process's cgroup and of all its parents, of both versions.

    ``membership`` lists the cgroups of the process; ``mounted`` is the folder of all cgroups. In a
    container, the listed path may not exist there, but the top folder has the limit.
    """
    try:
        lines = membership.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    bounds: list[Bound] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        version, top = (1, mounted / "memory") if controllers else (2, mounted)
        if version == 2 and (mounted / "unified").is_dir():
            top = mounted / "unified"
        folder = top / path.strip("/")
        for place in (folder, *folder.parents):
            bounds += _limits(place, version)
            if place == top:
                break
    return bounds


def _limits(folder: Path, version: int) -> Iterator[Bound]:
    """Yield the limits of one cgroup; a missing or unreadable file is no limit."""
    names, usage, prefix = _FILES[version]
    used = _number(folder / usage)
    for name in names:
        limit = _number(folder / name)
        if limit is not None and used is not None and limit < _UNLIMITED:
            yield Bound(limit, max(0, used - _page_cache(folder, prefix)))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # ValueError: "max"
        return None


def _page_cache(folder: Path, prefix: str) -> int:
    """Return the bytes of file contents in memory, which the kernel drops before it kills."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return 0
    numbers = dict(line.split(" ", 1) for line in lines if " " in line)
    kinds = (f"{prefix}inactive_file", f"{prefix}active_file")
    return sum(int(numbers.get(kind, 0)) for kind in kinds)


def _own_bounds() -> list[Bound]:
    """Return the limits of this process alone, such as that of `ulimit -v`."""
    if sys.platform == "win32":
        return []
    import resource

    memory = psutil.Process().memory_info()
    used = {"RLIMIT_AS": memory.vms, "RLIMIT_DATA": getattr(memory, "data", 0)}
    limits = {name: resource.getrlimit(getattr(resource, name))[0] for name in used}
    return [
        Bound(limit, used[name])
        for name, limit in limits.items()
        if limit != resource.RLIM_INFINITY
    ]
