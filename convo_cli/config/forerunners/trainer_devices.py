"""Devices of a LightningCLI config: its keys become training.device and training.devices."""

from __future__ import annotations

import re
from typing import Any

from convo_cli.config.forerunners.notes import (
    ALL_GPUS,
    ONE_DEVICE,
    SUPPORTED_DEVICES,
    is_one_of,
    whole_batch,
)
from convo_cli.config.forerunners.old_config import OldConfig

_GPUS, _DEVICES, _ACCELERATOR = "trainer.gpus", "trainer.devices", "trainer.accelerator"
_PROCESSES = "trainer.num_processes"
_CPU_NOTE = (
    "without gpus, Lightning trains on the CPU; training.device: auto selects a GPU if there is one"
)
_UNSUPPORTED = "other"
"""An accelerator that convo does not have."""
_INDEX = re.compile(r"\d{1,3}")
_INDICES = re.compile(r"\d{1,3}(?:, ?\d{1,3})*,?")
_KINDS = {
    "cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "mps": "mps", "auto": "auto", "ddp_cpu": "cpu",
}  # fmt: skip
_MAX_GPUS = 65_535
_ONE: tuple[Any, ...] = (None, 0, "0", 1, "1", "auto", [], [0])
"""Values of a number of devices that mean one, without a GPU."""
_STRATEGIES = ("ddp", "ddp_spawn", "ddp2", "ddp_sharded", "dp", "horovod", "deepspeed")
"""Values of accelerator in Lightning 1.4 that say how several devices work together."""


def map_devices(old: OldConfig) -> int:
    """Set training.device and training.devices.

    Returns the number of processes, which multiplies the batch size.
    """
    gpus, devices = old.get(_GPUS), old.get(_DEVICES)
    kind = _kind(old)
    if gpus is not None and devices is not None and gpus != devices:
        old.ambiguous(_DEVICES, f"{old.shown(_DEVICES)} disagrees with {_GPUS}: {old.shown(_GPUS)}")
        return 1
    if gpus not in (None, 0, []) and kind in ("cpu", "mps"):
        old.ambiguous(_ACCELERATOR, f"{kind} disagrees with {_GPUS}: {old.shown(_GPUS)}")
        return 1
    key, value = (_GPUS, gpus) if gpus is not None else (_DEVICES, devices)
    if kind in ("cpu", "mps", _UNSUPPORTED):
        return _without_gpus(old, value, kind)
    if kind == "cuda" and is_one_of(value, (0, [], "0")):
        old.ambiguous(key, f"{old.shown(key)} disagrees with {_ACCELERATOR}: {kind}")
        return 1
    if kind is None and gpus is None and devices is None:
        return _without_gpus(old, None, "cpu", _CPU_NOTE)
    values, count, note = {"training.device": kind or "auto"}, 1, ""
    if value == "auto":
        values, note = {**values, "training.devices": "auto"}, ALL_GPUS
    elif value is not None:
        values, count, note = _gpus(old, key, value)
    old.map(key, values, note)
    for other in (_GPUS, _DEVICES, _PROCESSES):
        if other != key:
            old.not_needed(other, "the devices follow from the other keys")
    if kind is not None:
        old.map(_ACCELERATOR, {"training.device": values["training.device"]})
    return count


def _kind(old: OldConfig) -> str | None:
    """Answer the accelerator and return its kind of device in convo, or None if it is open."""
    name = old.get(_ACCELERATOR)
    if name is None or is_one_of(name, _STRATEGIES):
        old.not_needed(_ACCELERATOR, ONE_DEVICE)
        return None
    if isinstance(name, str) and name in _KINDS:
        return _KINDS[name]
    old.unsupported(_ACCELERATOR, SUPPORTED_DEVICES)
    return _UNSUPPORTED


def _without_gpus(old: OldConfig, value: Any, kind: str, note: str = "") -> int:
    """Set a device that is no GPU, and the number of processes on a CPU."""
    device = {"training.device": "auto" if kind == _UNSUPPORTED else kind}
    old.map(_ACCELERATOR, device)  # an unsupported one keeps its answer
    one = f"training.device: {device['training.device']} is one device"
    if is_one_of(value, _ONE):
        key, value = _PROCESSES, old.get(_PROCESSES)
    else:
        key = _DEVICES
    if note:
        old.map(_DEVICES, device, note)
    for other in (_GPUS, _DEVICES, _PROCESSES):
        old.not_needed(other, one)
    if is_one_of(value, _ONE):
        return 1
    if kind == "cpu" and _INDEX.fullmatch(str(value)):
        old.map(key, device | {"training.devices": int(value)}, whole_batch(int(value)))
        return int(value)
    old.unsupported(key, one)
    return 1


def _gpus(old: OldConfig, key: str, value: Any) -> tuple[dict[str, Any], int, str]:
    """Return the values of convo, the number of GPUs and a note, for a value of gpus or devices."""
    if isinstance(value, str) and _INDICES.fullmatch(value) and "," in value:
        value = [int(part) for part in value.split(",") if part.strip()]
    if value in (-1, "-1"):
        return {"training.device": "cuda", "training.devices": "auto"}, 1, ALL_GPUS
    if isinstance(value, str) and _INDEX.fullmatch(value):
        if key == _DEVICES:
            value = int(value)
        else:
            note = (
                f'Lightning 1.4 reads "{value}" as the index of a GPU, later versions as a number '
                f"of GPUs; write [{value}] or {value} without quotes"
            )
            old.ambiguous(key, note)
            return {"training.device": "cuda"}, 1, ""
    count, one = 1, "cuda"
    if isinstance(value, list) and all(is_index(item) for item in value):
        count, one = len(value), f"cuda:{value[0]}" if value else "cpu"
    elif is_index(value) and value <= _MAX_GPUS:
        count, one = value, "cuda" if value else "cpu"
    else:
        old.wrong(key, "a number of GPUs, or a list of their numbers")
    if count > 1:
        return {"training.device": "cuda", "training.devices": value}, count, whole_batch(count)
    return {"training.device": one}, 1, ""


def is_index(value: Any) -> bool:
    """Return whether a value is a whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
