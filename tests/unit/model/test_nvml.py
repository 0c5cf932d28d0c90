"""Values of one GPU through NVML, from a fake driver with several GPUs."""

from __future__ import annotations

import inspect
from dataclasses import asdict

import pynvml
import pytest

from convo_cli.events import GpuUsage
from convo_cli.model.nvml import NvmlGpu
from tests.fake_nvml import OTHER, SLICE, WHOLE, FakeNvml

FUNCTIONS = [name for name in vars(FakeNvml) if name.startswith("nvml")]
ALL = GpuUsage(
    used_bytes=40 * 2**30,
    total_bytes=80 * 2**30,
    utilization=0.97,
    memory_utilization=0.0,
    temperature_celsius=64.0,
    memory_temperature_celsius=71.0,
    fan_speed=0.25,
    power_watts=412.5,
    power_limit_watts=700.0,
)
FIELDS = {
    "nvmlDeviceGetMemoryInfo": {"used_bytes", "total_bytes"},
    "nvmlDeviceGetUtilizationRates": {"utilization", "memory_utilization"},
    "nvmlDeviceGetTemperature": {"temperature_celsius"},
    "nvmlDeviceGetFieldValues": {"memory_temperature_celsius"},
    "nvmlDeviceGetFanSpeed": {"fan_speed"},
    "nvmlDeviceGetPowerUsage": {"power_watts"},
    "nvmlDeviceGetEnforcedPowerLimit": {"power_limit_watts"},
}


@pytest.fixture
def nvml(monkeypatch):
    return FakeNvml().install(monkeypatch)


def missing(usage):
    """The names of the values that are None, besides those that only torch knows."""
    return {name for name, value in asdict(usage).items() if value is None} - {
        "process_bytes",
        "peak_process_bytes",
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_fake_has_the_signatures_of_the_real_module(name):
    real = inspect.signature(inspect.unwrap(getattr(pynvml, name)))
    fake = list(inspect.signature(getattr(FakeNvml, name)).parameters)[1:]
    # Some functions of pynvml are wrapped without functools.wraps.
    assert list(real.parameters) in (fake, ["args", "kwargs"])


def test_every_value_is_that_of_the_gpu_with_the_uuid(nvml):
    assert NvmlGpu(WHOLE).usage() == ALL
    other = NvmlGpu(OTHER).usage()
    assert (other.used_bytes, other.temperature_celsius) == (60 * 2**30, 50.0)


def test_a_part_of_a_gpu_has_its_own_memory_and_the_heat_of_the_gpu(nvml):
    usage = NvmlGpu(SLICE).usage()
    assert (usage.used_bytes, usage.temperature_celsius) == (5 * 2**30, 50.0)


def test_the_memory_of_a_divided_gpu_is_not_that_of_the_run(nvml):
    nvml.divided.add(f"GPU-{OTHER}")
    assert missing(NvmlGpu(OTHER).usage()) == {"used_bytes", "total_bytes"}


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize(
    "error",
    [
        pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED),
        pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION),
        pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND),
        OSError("libnvidia-ml.so"),
    ],
    ids=["not supported", "no permission", "old driver", "system"],
)
def test_a_value_that_the_driver_does_not_provide_is_none_and_the_others_stay(nvml, name, error):
    nvml.failing[name] = error
    assert missing(NvmlGpu(WHOLE).usage()) == FIELDS[name]


def test_a_gpu_that_is_lost_during_the_run_has_no_values(nvml):
    gpu = NvmlGpu(WHOLE)
    lost = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
    nvml.failing = dict.fromkeys(FUNCTIONS, lost)
    assert gpu.usage() == GpuUsage()


def test_a_sensor_that_reads_zero_is_none_and_an_idle_gpu_is_zero(nvml):
    nvml.zeros = {"nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage", "memory"}
    nvml.zeros.add("nvmlDeviceGetFanSpeed")
    usage = NvmlGpu(WHOLE).usage()
    assert missing(usage) == {
        "temperature_celsius",
        "memory_temperature_celsius",
        "power_watts",
    }
    assert usage.fan_speed == usage.memory_utilization == 0.0


def test_an_unknown_gpu_is_an_error(nvml):
    with pytest.raises(pynvml.NVMLError):
        NvmlGpu("00000000-0000-0000-0000-000000000000")
