"""Devices that a config asks for: the number of processes that share each step, and their GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from convo_cli.cpus import num_cpus
from convo_cli.errors import UsageError
from convo_cli.wording import counted


class ChosenDevices(NamedTuple):
    """Processes of a run, one for each device."""

    num_processes: int
    gpus: tuple[int, ...] = ()
    """The GPUs that the config lists; empty if it only has their number."""


def choose_devices(
    devices: int | Sequence[int] | Literal["auto"], device: str, *, is_final: bool = False
) -> ChosenDevices:
    """Return the devices of a config with these keys; UsageError if there are not so many.

    Each process of a run refuses a GPU that does not exist, so this counts GPUs, for which it
    imports torch, only if it must: if ``devices`` is auto or more than there are CPUs, or if the
    answer ``is_final`` because no process will be started.
    """
    if devices == "auto":
        return ChosenDevices(max(1, _num_gpus(device)))
    gpus = () if isinstance(devices, int) else tuple(devices)
    number = devices if isinstance(devices, int) else len(gpus)
    is_counted = is_final and (gpus or number > 1)
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
        wants = f"names GPU {max(gpus)}" if gpus else f"asks for {counted(number, 'device')}"
        raise UsageError(f"training.devices {wants}, but {has}", hint=hint)
    return ChosenDevices(number, gpus)


def _num_gpus(device: str) -> int:
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()
