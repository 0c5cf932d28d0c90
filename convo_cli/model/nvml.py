"""Load, temperature, power and memory of one NVIDIA GPU, read through NVML."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from convo_cli.events import GpuUsage

T = TypeVar("T")


def measured(measure: Callable[[], T]) -> T | None:
    """Return a measurement; None if it fails, because no measurement is worth a run."""
    try:
        return measure()
    except Exception:  # noqa: BLE001  (libraries of drivers and systems may raise anything)
        return None


class NvmlGpu:
    """The GPU with a UUID of CUDA, so ``CUDA_VISIBLE_DEVICES`` selects it here too.

    Raises an error of NVML if there is no driver or no such GPU. The UUID may be that of a MIG
    instance, a part of a GPU with memory of its own; the other values are then of the whole GPU.
    """

    def __init__(self, uuid: str) -> None:
        import pynvml

        self._nvml: Any = pynvml
        pynvml.nvmlInit()
        try:
            self._gpu = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            mode = measured(lambda: pynvml.nvmlDeviceGetMigMode(self._gpu)[0])
            # The memory of a divided GPU is not that of the run's instance.
            self._instance = None if mode == pynvml.NVML_DEVICE_MIG_ENABLE else self._gpu
        except pynvml.NVMLError:
            self._instance = pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
            self._gpu = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self._instance)

    def usage(self) -> GpuUsage:
        """Return the values that the driver provides; the others are None."""
        nvml, gpu = self._nvml, self._gpu
        memory = self._instance and measured(lambda: nvml.nvmlDeviceGetMemoryInfo(self._instance))
        rates = measured(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu))
        fan_percent = measured(lambda: nvml.nvmlDeviceGetFanSpeed(gpu))
        return GpuUsage(
            used_bytes=memory and int(memory.used),
            total_bytes=memory and int(memory.total),
            utilization=rates and rates.gpu / 100,
            memory_utilization=rates and rates.memory / 100,
            temperature_celsius=_positive(
                lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
            ),
            memory_temperature_celsius=_positive(self._memory_temperature),
            fan_speed=None if fan_percent is None else fan_percent / 100,
            power_watts=_positive(lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
            power_limit_watts=_positive(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000),
        )

    def _memory_temperature(self) -> float:
        (field,) = self._nvml.nvmlDeviceGetFieldValues(
            self._gpu, [self._nvml.NVML_FI_DEV_MEMORY_TEMP]
        )
        return 0.0 if field.nvmlReturn else float(field.value.uiVal)


def _positive(measure: Callable[[], float]) -> float | None:
    """Return a measurement; some drivers write 0 where they have none."""
    return measured(lambda: float(measure())) or None
