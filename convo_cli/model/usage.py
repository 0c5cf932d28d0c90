"""Use of the machine by a run: memory and CPUs, and memory, load and power of its GPU."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import psutil
import torch

from convo_cli.events import DeviceMeasured, GpuUsage
from convo_cli.model.nvml import NvmlGpu, measured
from convo_cli.world import World

_SECONDS = 10.0
"""Minimum time between two measurements."""
_PAUSE = 1000.0
"""Pause after a measurement, as a multiple of its duration: slow drivers cost at most 0.1 %."""
_CPU_SECONDS = 0.1
"""Minimum time over which a share of the system's CPU times is measured."""


class UsageMeter:
    """Measures the machine at most every 10 seconds and for at most 0.1 % of the time.

    A value that is not available is None. Nothing here raises, draws random numbers or waits for
    the device.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.monotonic) -> None:
        self._device, self._clock = device, clock
        self._next_at = -math.inf
        self._gpu: NvmlGpu | None = None
        self._cpu_since = clock()
        measured(psutil.cpu_percent)  # begins the interval of the first share

    def is_due(self) -> bool:
        """Return whether it is time for the next measurement."""
        return self._clock() >= self._next_at

    def measure(self, step: int) -> DeviceMeasured:
        """Return the use of the machine by this process after ``step`` updates."""
        began = self._clock()
        if self._next_at == -math.inf and self._device.type == "cuda":
            self._gpu = measured(lambda: NvmlGpu(_uuid(self._device)))
        memory, peak = measured(process_memory) or (None, None)
        result = DeviceMeasured(
            step=step,
            memory_bytes=memory,
            peak_memory_bytes=peak,
            cpu_utilization=self._cpu_utilization(began),
            gpu=self._gpu_usage(),
        )
        ended = self._clock()
        self._next_at = ended + max(_SECONDS, _PAUSE * (ended - began))
        return result

    def _cpu_utilization(self, now: float) -> float | None:
        seconds, self._cpu_since = now - self._cpu_since, now
        percent = measured(psutil.cpu_percent)
        # 0 means that the system has no times: the previous step used a CPU.
        return percent / 100 if percent and seconds >= _CPU_SECONDS else None

    def _gpu_usage(self) -> GpuUsage | None:
        if self._device.type == "mps":
            return GpuUsage(
                process_bytes=measured(torch.mps.driver_allocated_memory),
                total_bytes=measured(torch.mps.recommended_max_memory),
            )
        if self._device.type != "cuda":
            return None
        device, usage = self._device, GpuUsage() if self._gpu is None else self._gpu.usage()
        if usage.total_bytes is None and (memory := _cuda_memory(device)):
            usage = replace(usage, used_bytes=memory[1] - memory[0], total_bytes=memory[1])
        return replace(
            usage,
            process_bytes=measured(lambda: torch.cuda.memory_reserved(device)) or None,
            peak_process_bytes=measured(lambda: torch.cuda.max_memory_reserved(device)) or None,
        )


def usage_of_job(own: DeviceMeasured, world: World) -> DeviceMeasured:
    """Return the usage of a job: the memory of all its processes, and the GPU where it holds most.

    The job runs out of memory on that GPU first. Every process of the world calls this.
    """
    values = [own.memory_bytes, own.peak_memory_bytes, own.gpu and asdict(own.gpu)]
    memory, peaks, gpus = zip(*world.gather(values), strict=True)
    return replace(
        own,
        memory_bytes=_total(memory),
        peak_memory_bytes=_total(peaks),
        gpu=max((GpuUsage(**gpu) for gpu in gpus if gpu), key=_held, default=None),
    )


def _total(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _held(gpu: GpuUsage) -> int:
    return gpu.peak_process_bytes or gpu.process_bytes or 0


def process_memory() -> tuple[int, int]:
    """Return the resident memory of this process in bytes, now and at its peak.

    Child processes are not counted: to find them, psutil reads every process of the machine, which
    takes 45 microseconds of CPU time for each.
    """
    memory = psutil.Process().memory_info()
    if sys.platform == "win32":
        return memory.rss, memory.peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    return memory.rss, max(memory.rss, peak)  # Linux updates the peak a little later


def _uuid(device: torch.device) -> str:
    return str(torch.cuda.get_device_properties(device).uuid)


def _cuda_memory(device: torch.device) -> tuple[int, int] | None:
    """Return free and total memory by CUDA, for a GPU whose memory NVML does not report."""
    return measured(lambda: torch.cuda.mem_get_info(device))
