"""Values of other trainers for precision and device, and the values that convo has for them."""

from __future__ import annotations

import re
from typing import Any, Literal

_PRECISIONS = {
    "fp32": "32 32-true float32 float full single no fp32-true torch.float32",
    "bf16": "bf16-mixed bfloat16 bf16-true torch.bfloat16",
    "fp16": "16 16-mixed float16 half fp16-mixed 16-true mixed torch.float16",
}
_PRECISION_OF = {other: name for name, others in _PRECISIONS.items() for other in others.split()}
_DOUBLE = ("64", "64-true", "fp64", "float64", "double")
_NAMED_DEVICE = re.compile(r"(cpu|mps|cuda|gpu|metal)[: ]?(\d{1,3})?")
_INDEX = re.compile(r"\d{1,3}")
_SEVERAL = re.compile(r"(?:cuda|gpu)?[: ]?\d{1,3}(?:, ?\d{1,3})+")
_FLAGS = {
    "fp16": ("fp16", "fp32"),
    "amp": ("fp16", "fp32"),
    "use_amp": ("fp16", "fp32"),
    "bf16": ("bf16", "fp32"),
    "use_cuda": ("cuda", "cpu"),
}
"""Keys of other trainers with a switch: the values of convo for true and false."""
_COUNTS = ("gpu", "gpus", "devices")
"""Keys of other trainers with a number of GPUs."""

_AS_MANY_AS_FIT = ("auto", "max", "power", "binsearch")
"""Values of other trainers for a batch that is as large as memory allows."""
_FINDERS = ("auto_find_batch_size", "auto_scale_batch_size")
"""Keys of other trainers that switch such batches on or off."""


def precision_of(value: Any) -> str | None:
    """Return convo's name of a precision: fp16 for 16 or 16-mixed; None if convo has none."""
    if isinstance(value, bool | list | dict) or value is None:
        return None
    text = str(value).lower()
    return text if text in _PRECISIONS else _PRECISION_OF.get(text)


def device_of(value: Any) -> str | None:
    """Return convo's name of one device: cuda:0 for 0, [0] or gpu:0; None if convo has none."""
    if isinstance(value, list):
        is_one = len(value) == 1 and not isinstance(value[0], list)
        return device_of(value[0]) if is_one else None
    if isinstance(value, bool | dict) or value is None:
        return None
    text = str(value).lower().strip()
    if _INDEX.fullmatch(text):
        return f"cuda:{int(text)}"
    if text == "auto":
        return text
    if (named := _NAMED_DEVICE.fullmatch(text)) is None:
        return None
    kind = {"gpu": "cuda", "metal": "mps"}.get(named[1], named[1])
    return f"{kind}:{int(named[2])}" if named[2] and kind == "cuda" else kind


def gpus_of(value: Any) -> list[Any] | Literal["auto"] | None:
    """Return the GPUs of a value that names several: [0, 1] for 0,1; auto for -1; else None."""
    if isinstance(value, list):
        return value if len(value) > 1 and all(type(item) is int for item in value) else None
    text = str(value).lower().strip()
    if text == "-1":
        return "auto"
    return [int(number) for number in _INDEX.findall(text)] if _SEVERAL.fullmatch(text) else None


def advice(path: str, value: Any) -> str:
    """Return what to write for a value of another trainer in convo's key; empty if unknown."""
    if path == "training.precision" and (precision := precision_of(value)):
        return f"write {precision}"
    if path == "training.precision" and str(value).lower() in _DOUBLE:
        return "there is no double precision; write fp32"
    if path == "training.micro_batch_size" and (value == -1 or value in _AS_MANY_AS_FIT):
        return "write auto"
    if path == "training.batch_size" and (value == -1 or value in _AS_MANY_AS_FIT):
        return (
            "give a number of examples; micro_batch_size: auto cuts the step into passes that fit "
            "in memory"
        )
    if path == "training.device":
        if (gpus := gpus_of(value)) is not None:
            return f"write cuda, and training.devices: {str(gpus)[:60]}"
        if device := device_of(value):
            return f"write {device}"
    return ""


def advice_for_other_key(name: str, path: str, value: Any) -> str:
    """Return what to write in convo's key ``path`` for a value under another trainer's name."""
    if name in _FLAGS and isinstance(value, bool):
        return f"write {path.rpartition('.')[2]}: {_FLAGS[name][not value]}"
    if name in _FINDERS:
        return "write micro_batch_size: auto" if value else "leave it out"
    if name in _COUNTS and isinstance(value, int) and not isinstance(value, bool):
        if value > 1:
            return f"write device: cuda and devices: {value}"
        if value >= 0:
            return f"write device: {'cuda' if value else 'cpu'}"
    return advice(path, value).replace("write ", f"write {path.rpartition('.')[2]}: ")
