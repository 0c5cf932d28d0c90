"""Devices that a config asks for: the number of processes that share each step, and their GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from convo_cli.cpus import num_cpus
from convo_cli.errors import UsageError
from convo_cli.wording import counted


class ChosenDevices(NamedTuple):
    """Processes of a run, one for each device."""

    count: int
    gpus: tuple[int, ...] = ()
    """The GPUs that the config lists; empty if it only has their number."""


def choose_devices(devices: int | Sequence[int] | Literal["auto"], device: str) -> ChosenDevices:
    """Return the devices of a config with these keys; UsageError if there are not so many.

    On a GPU, each process checks its own. torch is imported only to count the GPUs if ``devices``
    is auto, or more than there are CPUs.
    """
    if isinstance(devices, Sequence) and devices != "auto":
        return ChosenDevices(len(devices), tuple(devices))
    if devices == "auto":
        return ChosenDevices(max(1, _num_gpus(device)))
    assert isinstance(devices, int), "the schema allows numbers, lists and auto"
    if devices <= num_cpus() or devices <= (num_gpus := _num_gpus(device)):
        return ChosenDevices(devices)
    if num_gpus or device == "cuda":
        has = f"this machine has {counted(num_gpus, 'CUDA device')}"
        hint = "lower --devices, or use --devices auto"
    else:
        has = f"convo may use {counted(num_cpus(), 'CPU')} here"
        hint = "lower --devices: each process needs a CPU"
    raise UsageError(
        f"training.devices asks for {counted(devices, 'device')}, but {has}", hint=hint
    )


def _num_gpus(device: str) -> int:
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()
