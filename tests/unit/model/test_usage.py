"""Measurements of the machine: their values, their rate, and failures that never stop a run."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from types import SimpleNamespace

import psutil
import pynvml
import pytest
import torch

from convo_cli.events import DeviceMeasured, GpuUsage
from convo_cli.model.usage import UsageMeter, process_memory, usage_of_job
from convo_cli.world import World
from tests.fake_nvml import OTHER, WHOLE, FakeNvml
from tests.run_events import FakeClock

CPU, SECOND_GPU = torch.device("cpu"), torch.device("cuda", 1)
MIB = 2**20


@pytest.fixture
def cuda(monkeypatch):
    """Two GPUs of CUDA, whose order is not that of NVML."""
    values = {
        "get_device_properties": lambda device: SimpleNamespace(uuid=[OTHER, WHOLE][device.index]),
        "memory_reserved": lambda device: 12 * MIB,
        "max_memory_reserved": lambda device: 14 * MIB,
        "mem_get_info": lambda device: (75 * MIB, 80 * MIB),
    }
    for name, function in values.items():
        monkeypatch.setattr(torch.cuda, name, function)


def raising(*arguments):
    raise psutil.AccessDenied


def test_memory_grows_with_what_the_process_allocates():
    before, _ = process_memory()
    keep = torch.ones(200 * MIB, dtype=torch.uint8)
    during, _ = process_memory()
    assert during - before >= 0.9 * keep.nbytes
    del keep
    after, peak = process_memory()
    assert after + 100 * MIB < during < peak + MIB  # the kernel's counters differ a little


def test_the_peak_on_windows_is_that_of_psutil(monkeypatch):
    memory = SimpleNamespace(rss=3 * MIB, peak_wset=5 * MIB)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: memory))
    assert process_memory() == (3 * MIB, 5 * MIB)


def test_a_run_on_a_cpu_measures_memory_and_cpus():
    clock = FakeClock()
    meter = UsageMeter(CPU, clock)
    sum(range(3_000_000))
    clock.now += 1
    usage = meter.measure(7)
    assert usage is not None
    assert usage.step == 7
    assert usage.memory_bytes > 50 * MIB
    assert usage.peak_memory_bytes >= usage.memory_bytes
    assert 0 < usage.cpu_utilization <= 1
    assert usage.gpu is None


def test_a_measurement_comes_with_the_first_step_every_ten_seconds():
    clock = FakeClock()
    meter = UsageMeter(CPU, clock)
    measured = []
    for step in range(1, 101):
        clock.now += 0.3
        if meter.is_due():
            measured.append(meter.measure(step).step)
    assert measured == [1, 35, 69]


def test_a_slow_driver_is_asked_less_often(monkeypatch):
    clock = FakeClock()
    meter = UsageMeter(CPU, clock)

    def slow():
        clock.now += 0.5

    monkeypatch.setattr(psutil, "cpu_percent", slow)
    measured = 0
    for step in range(10_000):
        clock.now += 1
        if meter.is_due():
            meter.measure(step)
            measured += 1
    assert measured == 20  # half a second of each 500


def test_a_share_of_the_cpus_needs_a_time_over_which_it_is_a_share():
    clock = FakeClock()
    meter = UsageMeter(CPU, clock)
    clock.now += 0.01
    assert meter.measure(1).cpu_utilization is None


def test_a_gpu_is_the_one_that_cuda_shows_to_the_run(monkeypatch, cuda):
    FakeNvml().install(monkeypatch)
    gpu = UsageMeter(SECOND_GPU, FakeClock()).measure(1).gpu
    assert (gpu.process_bytes, gpu.peak_process_bytes) == (12 * MIB, 14 * MIB)
    assert (gpu.used_bytes, gpu.total_bytes) == (40 * 2**30, 80 * 2**30)
    assert (gpu.temperature_celsius, gpu.power_watts) == (64.0, 412.5)


@pytest.mark.parametrize(
    "error",
    [
        pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND),
        pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED),
        pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION),
        OSError("cannot open shared object file"),
    ],
    ids=["no library", "no driver", "no permission", "broken library"],
)
def test_without_nvml_a_gpu_has_the_memory_that_cuda_reports(monkeypatch, cuda, error):
    FakeNvml().install(monkeypatch).failing["nvmlInit"] = error
    gpu = UsageMeter(SECOND_GPU, FakeClock()).measure(1).gpu
    assert gpu == GpuUsage(12 * MIB, 14 * MIB, 5 * MIB, 80 * MIB)


def test_without_the_package_of_nvml_a_gpu_has_the_memory_that_cuda_reports(monkeypatch, cuda):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert UsageMeter(SECOND_GPU, FakeClock()).measure(1).gpu.used_bytes == 5 * MIB


def test_the_memory_of_a_gpu_of_apple_is_that_of_metal(monkeypatch):
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 3 * MIB)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", raising)
    gpu = UsageMeter(torch.device("mps"), FakeClock()).measure(1).gpu
    assert gpu == GpuUsage(process_bytes=3 * MIB)


def test_where_nothing_can_be_measured_every_value_is_none(monkeypatch):
    """CUDA is missing here, too."""
    for name in ("Process", "cpu_percent"):
        monkeypatch.setattr(psutil, name, raising)
    usage = UsageMeter(SECOND_GPU, FakeClock()).measure(1)
    assert usage == DeviceMeasured(1, None, None, None, GpuUsage())


class _Beside(World):
    """A world whose other process has measured the given values."""

    size = 2

    def __init__(self, *other):
        self._other = other

    def gather(self, value):
        return [value, json.loads(json.dumps(self._other))]


def test_the_memory_of_a_job_is_that_of_all_its_processes():
    own = DeviceMeasured(3, 10, 12, 0.5)
    assert usage_of_job(own, World()) == own
    assert usage_of_job(own, _Beside(1, 2, None)) == DeviceMeasured(3, 11, 14, 0.5)
    assert usage_of_job(own, _Beside(None, 2, None)).memory_bytes is None


def test_the_gpu_of_a_job_is_the_one_on_which_it_holds_most():
    emptier, fuller = GpuUsage(5, 6, power_watts=80.0), GpuUsage(4, 9, power_watts=70.0)
    for own, other in ((emptier, fuller), (fuller, emptier)):
        job = usage_of_job(DeviceMeasured(1, 1, 1, None, own), _Beside(1, 1, asdict(other)))
        assert job.gpu == fuller
