"""Devices of a LightningCLI config: gpus, devices and accelerator become training.device."""

from __future__ import annotations

import re
from typing import Any

from convo_cli.config.forerunners.notes import ONE_DEVICE, SUPPORTED_DEVICES, is_one_of
from convo_cli.config.forerunners.old_config import OldConfig
from convo_cli.config.habits import SEVERAL_GPUS

_GPUS, _DEVICES, _ACCELERATOR = "trainer.gpus", "trainer.devices", "trainer.accelerator"
_CPU_NOTE = (
    "without gpus, Lightning trains on the CPU; training.device: auto selects a GPU if there is one"
)
_UNSUPPORTED = "other"
"""An accelerator that convo does not have."""
_INDICES = re.compile(r"\d{1,3}(?:, ?\d{1,3})*,?")
_KINDS = {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "mps": "mps", "auto": "auto"}
_STRATEGIES = ("ddp", "ddp_cpu", "ddp_spawn", "ddp2", "ddp_sharded", "dp", "horovod", "deepspeed")
"""Values of accelerator in Lightning 1.4 that say how several devices work together."""


def map_devices(old: OldConfig) -> int:
    """Set training.device and return the number of GPUs, which multiplies the batch size."""
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
        return _one_device(old, key, value, kind)
    if kind == "cuda" and is_one_of(value, (0, [], "0")):
        old.ambiguous(key, f"{old.shown(key)} disagrees with {_ACCELERATOR}: {kind}")
        return 1
    if kind is None and gpus is None and devices is None:
        device, count, note = "cpu", 1, _CPU_NOTE
    elif value in (None, "auto"):
        device, count, note = kind or "auto", 1, ""
    else:
        device, count, note = _gpus(old, key, value)
    if count > 1 or value in (-1, "-1"):
        becomes = ("training.device", "training.batch_size")[: 2 if count > 1 else 1]
        old.new_values["training.device"] = device
        old.unsupported(key, f"{SEVERAL_GPUS}{note}", becomes)
    else:
        old.map(key, {"training.device": device}, note)
    for other in (_GPUS, _DEVICES):
        if other != key:
            old.not_needed(other, "the device follows from the other keys")
    if kind is not None:
        old.map(_ACCELERATOR, {"training.device": device})
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


def _one_device(old: OldConfig, key: str, value: Any, kind: str) -> int:
    device = "auto" if kind == _UNSUPPORTED else kind
    old.map(_ACCELERATOR, {"training.device": device})  # an unsupported one keeps its answer
    for name in (_GPUS, _DEVICES):
        if name != key or is_one_of(value, (None, 0, 1, "1", "auto", [], [0])):
            old.not_needed(name, f"training.device: {device} is one device")
        else:
            old.unsupported(
                name, "the new config uses one process; for several, add --devices to `convo train`"
            )
    return 1


def _gpus(old: OldConfig, key: str, value: Any) -> tuple[str, int, str]:
    """Return device, number of GPUs and a note for a value of gpus or devices."""
    if isinstance(value, str) and _INDICES.fullmatch(value) and "," in value:
        value = [int(part) for part in value.split(",") if part.strip()]
    if value in (-1, "-1"):
        return "cuda", 1, ""
    if isinstance(value, str) and _INDICES.fullmatch(value):
        if key == _DEVICES:
            value = int(value)
        else:
            note = (
                f'Lightning 1.4 reads "{value}" as the index of a GPU, later versions as a number '
                f"of GPUs; write [{value}] or {value} without quotes"
            )
            old.ambiguous(key, note)
            return "cuda", 1, ""
    if isinstance(value, list) and all(is_index(item) for item in value):
        if len(value) > 1:
            return f"cuda:{value[0]}", len(value), _larger_step(len(value))
        return (f"cuda:{value[0]}", 1, "") if value else ("cpu", 1, "")
    if is_index(value):
        if value > 1:
            return "cuda", value, _larger_step(value)
        return ("cuda", 1, "") if value else ("cpu", 1, "")
    old.wrong(key, "a number of GPUs, or a list of their numbers")
    return "cuda", 1, ""


def is_index(value: Any) -> bool:
    """Return whether a value is a whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _larger_step(num_gpus: int) -> str:
    return f", with training.batch_size for all {num_gpus}"
