"""Device and precision of the model."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from convo_cli.config.schema import Devices, Precision
from convo_cli.errors import UsageError
from convo_cli.runs.provenance.execution import ResolvedPrecision
from convo_cli.wording import counted
from convo_cli.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_DTYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
_OTHER_DEVICE = (
    "use auto or cpu: train and resume with --set training.device=auto, chat and evaluate with "
    "--device auto"
)


def choose_device(name: str) -> torch.device:
    """Return the named device, or the best one for ``auto``; UsageError if it is not available."""
    if name == "auto":
        has_mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(
            f"device {name}: not known", hint="use auto, cpu, cuda, cuda:0 or mps"
        ) from None
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        has = f"{count} CUDA device{'s' * (count > 1)}" if count else "no CUDA device"
        raise UsageError(f"device {name}: this machine has {has}", hint=_OTHER_DEVICE)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device mps: not available here", hint=_OTHER_DEVICE)
    return device


def own_device(device: torch.device, world: World) -> torch.device:
    """Return the device of this process; UsageError for one that several cannot use."""
    if world.size == 1:
        return device
    if device.type == "cuda":
        return torch.device("cuda", world.local_rank)
    if device.type == "cpu":
        return device
    raise UsageError(
        f"device {device}: only one process can use it", hint="--set training.device=cpu"
    )


def require_gpus(devices: Devices, device: torch.device) -> None:
    """Raise UsageError if ``devices`` lists GPUs, but the chosen device is not one."""
    if isinstance(devices, tuple) and device.type != "cuda":
        raise UsageError(
            f"the list of devices names {counted(len(devices), 'GPU')}, but the device is {device}",
            hint=f"--devices {len(devices)} starts that many processes",
        )


def device_name(device: torch.device) -> str:
    """Return the model name of the GPU or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.machine()  # platform.processor() would start a program


def choose_precision(name: Precision, device: torch.device) -> ResolvedPrecision:
    """Return the named precision; ``auto`` is bf16 on a GPU with native support, else fp32."""
    if name != "auto":
        return name
    has_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "bf16" if has_bf16 else "fp32"


def autocast_for(
    device: torch.device, precision: ResolvedPrecision
) -> Callable[[], AbstractContextManager[None]]:
    """Return a function that creates autocast contexts for the forward pass.

    Weights and loss stay in fp32.
    """
    if precision == "fp32":
        return nullcontext
    dtype = _DTYPES[precision]
    return lambda: torch.autocast(device.type, dtype=dtype)


def make_deterministic(device: torch.device) -> None:
    """Allow only deterministic algorithms; torch raises for an operation that has none."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def has_drawn_random_numbers(device: torch.device, seed: int) -> bool:
    """Return whether random numbers were drawn on the device or the CPU since `manual_seed`.

    This detects every kind of dropout, also one that the model reads from its config or that skips
    layers.
    """
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states[str(device)] = torch.cuda.get_rng_state(device)
    fresh = ((torch.Generator(name).manual_seed(seed), state) for name, state in states.items())
    return any(not torch.equal(generator.get_state(), state) for generator, state in fresh)


def move(model: PreTrainedModel, device: torch.device) -> None:
    """Move the model's weights to the device."""
    torch.nn.Module.to(model, device)
