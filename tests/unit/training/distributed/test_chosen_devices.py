"""The number of GPUs bounds a run on GPUs, and the number of CPUs only a run on CPUs."""

from __future__ import annotations

import pytest
import torch

from convo_cli.errors import UsageError
from convo_cli.training.distributed import chosen_devices
from convo_cli.training.distributed.chosen_devices import choose_devices


@pytest.fixture
def machine(monkeypatch):
    """Two CPUs and four GPUs."""
    monkeypatch.setattr(chosen_devices, "num_cpus", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.parametrize(
    ("devices", "device", "count", "gpus"),
    [
        (1, "auto", 1, ()),
        (2, "cpu", 2, ()),
        (4, "auto", 4, ()),
        (4, "cuda", 4, ()),
        ("auto", "auto", 4, ()),
        ("auto", "cpu", 1, ()),
        ((0, 2, 3), "auto", 3, (0, 2, 3)),
    ],
)
def test_more_gpus_than_cpus_may_be_used(machine, devices, device, count, gpus):
    assert choose_devices(devices, device) == (count, gpus)


@pytest.mark.parametrize(
    ("device", "num_gpus", "message"),
    [
        ("cpu", 4, "cannot use 5 devices: convo may use 2 CPUs here"),
        ("auto", 4, "cannot use 5 devices: this machine has 4 CUDA devices"),
        ("auto", 0, "cannot use 5 devices: convo may use 2 CPUs here"),
        ("cuda", 0, "cannot use 5 devices: this machine has 0 CUDA devices"),
    ],
)
def test_more_devices_than_there_are_are_refused(machine, monkeypatch, device, num_gpus, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    with pytest.raises(UsageError, match=message):
        choose_devices(5, device)


def test_a_dry_run_counts_the_gpus_because_no_process_does(machine, monkeypatch):
    assert choose_devices((0, 3), "auto", is_dry_run=True).num_processes == 2
    for devices, message in (((0, 4), "GPU 4"), (5, "5 devices")):
        with pytest.raises(
            UsageError, match=f"cannot use {message}: this machine has 4 CUDA devices"
        ):
            choose_devices(devices, "auto", is_dry_run=True)
    monkeypatch.setattr(chosen_devices, "num_cpus", lambda: 8)
    with pytest.raises(UsageError, match="cannot use 5 devices: this machine has 4 CUDA"):
        choose_devices(5, "auto", is_dry_run=True)
    assert choose_devices(5, "auto").num_processes == 5  # the processes refuse it
