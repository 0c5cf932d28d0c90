"""Devices that a config asks for: how many processes share each step, and on which GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, NamedTuple

from convo_cli.cpus import num_cpus
from convo_cli.errors import UsageError
from convo_cli.wording import counted


class ChosenDevices(NamedTuple):
    """Devices of a run, which has one process for each."""

    num_processes: int
    gpus: tuple[int, ...] = ()
    """The GPUs that the config lists; empty if it has only a number of devices."""


def choose_devices(
    devices: int | Sequence[int] | Literal["auto"], device: str, *, is_dry_run: bool = False
) -> ChosenDevices:
    """Return the devices that these config keys ask for; UsageError if the machine has fewer.

    Counting GPUs imports torch, which takes seconds, and each process of a run refuses a GPU that
    does not exist. So GPUs are counted only if ``devices`` is auto or greater than the number of
    CPUs, or in a dry run, which starts no processes.
    """
    if devices == "auto":
        return ChosenDevices(max(1, _num_gpus(device)))
    gpus = () if isinstance(devices, int) else tuple(devices)
    number = devices if isinstance(devices, int) else len(gpus)
    is_counted = is_dry_run and (gpus or number > 1)
    if not is_counted and (gpus or number <= num_cpus()):
        return ChosenDevices(number, gpus)
    num_gpus = _num_gpus(device)
    if gpus or num_gpus or device == "cuda":
        most, needed = num_gpus, max(gpus) + 1 if gpus else number
        has = f"this machine has {counted(num_gpus, 'CUDA device')}"
        hint = "--devices auto uses all" if num_gpus else "--set training.device=cpu --devices 1"
    else:
        most, needed = num_cpus(), number
        has = f"convo may use {counted(most, 'CPU')} here"
        hint = "lower --devices: each process needs a CPU"
    if needed > most:
        wanted = f"GPU {max(gpus)}" if gpus else counted(number, "device")
        raise UsageError(f"cannot use {wanted}: {has}", hint=hint)
    return ChosenDevices(number, gpus)


def as_visible_devices(gpus: Sequence[int]) -> str:
    """Return the value of CUDA_VISIBLE_DEVICES that selects these of the visible GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return ",".join(map(str, gpus))
    names = [name for name in visible.split(",") if name]  # an empty list hides all GPUs
    if max(gpus) >= len(names):
        raise UsageError(
            f"the list of devices names GPU {max(gpus)}, but CUDA_VISIBLE_DEVICES has "
            f"{counted(len(names), 'GPU')}",
            hint="count the GPUs from 0 in the order of CUDA_VISIBLE_DEVICES",
        )
    return ",".join(names[gpu] for gpu in gpus)


def _num_gpus(device: str) -> int:
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()
