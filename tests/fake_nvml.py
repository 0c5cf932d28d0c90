"""A fake of the module `pynvml` with several GPUs, of which one may be divided or broken."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pynvml

WHOLE = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
SLICE = "77777777-2222-3333-4444-555555555555"


class FakeNvml:
    """The functions of `pynvml` that convo calls; ``failing`` names those that raise an error.

    ``WHOLE`` and ``OTHER`` are GPUs, ``SLICE`` is a MIG instance of ``OTHER``.
    """

    NVMLError = pynvml.NVMLError
    NVML_DEVICE_MIG_ENABLE = pynvml.NVML_DEVICE_MIG_ENABLE
    NVML_FI_DEV_MEMORY_TEMP = pynvml.NVML_FI_DEV_MEMORY_TEMP
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def __init__(self) -> None:
        self.failing: dict[str, BaseException] = {}
        self.divided: set[str] = set()
        self.zeros: set[str] = set()

    def install(self, monkeypatch: Any) -> FakeNvml:
        """Replace `pynvml` until the end of the test."""
        monkeypatch.setitem(sys.modules, "pynvml", self)
        return self

    def _value(self, name: str, handle: str, value: Any) -> Any:
        if name in self.failing:
            raise self.failing[name]
        assert handle in (f"GPU-{WHOLE}", f"GPU-{OTHER}", f"MIG-{SLICE}")
        return 0 if name in self.zeros else value

    def nvmlInit(self):  # noqa: N802
        self._value("nvmlInit", f"GPU-{WHOLE}", None)

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        if uuid not in (f"GPU-{WHOLE}", f"GPU-{OTHER}", f"MIG-{SLICE}"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, migDevice):  # noqa: N802, N803
        assert migDevice == f"MIG-{SLICE}"
        return f"GPU-{OTHER}"

    def nvmlDeviceGetMigMode(self, device):  # noqa: N802
        return self._value("nvmlDeviceGetMigMode", device, [int(device in self.divided), 0])

    def nvmlDeviceGetMemoryInfo(self, handle, version=None):  # noqa: N802
        used = {f"GPU-{WHOLE}": 40, f"GPU-{OTHER}": 60, f"MIG-{SLICE}": 5}[handle]
        memory = SimpleNamespace(used=used * 2**30, total=2 * used * 2**30)
        return self._value("nvmlDeviceGetMemoryInfo", handle, memory)

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        rates = SimpleNamespace(gpu=97, memory=0)
        return self._value("nvmlDeviceGetUtilizationRates", handle, rates)

    def nvmlDeviceGetTemperature(self, handle, sensor):  # noqa: N802
        assert sensor == self.NVML_TEMPERATURE_GPU
        degrees = 64 if WHOLE in handle else 50
        return self._value("nvmlDeviceGetTemperature", handle, degrees)

    def nvmlDeviceGetFieldValues(self, handle, fieldIds):  # noqa: N802, N803
        assert fieldIds == [self.NVML_FI_DEV_MEMORY_TEMP]
        error = pynvml.NVML_ERROR_NOT_SUPPORTED if "memory" in self.zeros else 0
        field = SimpleNamespace(nvmlReturn=error, value=SimpleNamespace(uiVal=71))
        return self._value("nvmlDeviceGetFieldValues", handle, [field])

    def nvmlDeviceGetFanSpeed(self, handle):  # noqa: N802
        return self._value("nvmlDeviceGetFanSpeed", handle, 25)

    def nvmlDeviceGetPowerUsage(self, handle):  # noqa: N802
        return self._value("nvmlDeviceGetPowerUsage", handle, 412_500)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):  # noqa: N802
        return self._value("nvmlDeviceGetEnforcedPowerLimit", handle, 700_000)
