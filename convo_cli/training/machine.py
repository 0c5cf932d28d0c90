"""Execution of a run: device, precision, CPU threads, batching; a resume keeps it if it can."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import torch

from convo_cli.config.schema import RunConfig, TrainingConfig
from convo_cli.errors import UsageError
from convo_cli.events import Emit, Notice
from convo_cli.model.batches.batching import Batching
from convo_cli.model.device import (
    choose_device,
    choose_precision,
    device_name,
    make_deterministic,
    own_device,
    require_gpus,
)
from convo_cli.runs.provenance.execution import Execution, Machine, ResolvedPrecision
from convo_cli.runs.provenance.run_info import RunInfo
from convo_cli.training.distributed.rank_process import is_launched
from convo_cli.wording import counted
from convo_cli.world import World, seat_in

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Environment variables that change which kernels the math libraries use."""


def choose_machine(
    info: RunInfo | None, config: RunConfig, emit: Emit, world: World | None = None
) -> Machine:
    """Choose device and precision: from the config for a new run, from ``info`` for a resumed one.

    ``info`` is the run's run.json. A resume also sets the stored number of CPU threads. It uses
    another device or precision if the user asks for it or the stored device is not available.
    UsageError if the device in the config is not available.
    """
    wanted, precision, world = config.training, None, world or World()
    if info is None or wanted.device != info.config.training.device:
        device = choose_device(wanted.device)
    else:
        device = _stored_device(info.execution, wanted, emit)
    if info is not None:
        stored = info.execution
        if (
            wanted.precision == info.config.training.precision
            and device.type == torch.device(stored.device).type
        ):
            precision = stored.precision
        if stored.num_processes == world.size:  # else the bits change anyway
            _set_threads(stored.num_threads, os.environ, emit)
    _require_obeyed(wanted, device, world, emit)
    device = own_device(device, world)
    precision = precision or choose_precision(wanted.precision, device)
    return _machine(config, device, precision, world)


def execution_of(
    machine: Machine, batching: Batching, sharding: Literal["none", "full"]
) -> Execution:
    """Combine the machine with the batching and the sharding that were chosen on it."""
    return Execution(
        **machine.model_dump(),
        is_packed=batching.is_packed,
        why_padded=batching.why_padded,
        has_plain_head=batching.has_plain_head,
        attention=batching.attention,
        sharding=sharding,
    )


def _require_obeyed(
    training: TrainingConfig, device: torch.device, world: World, emit: Emit
) -> None:
    """Raise UsageError for a list of GPUs without a GPU; report a number without effect."""
    devices = training.devices
    if is_launched():
        require_gpus(devices, device)
    elif seat_in() is not None and devices not in (1, "auto", world.size):
        emit(
            Notice(
                "training.devices has no effect: the launcher of this process chose "
                f"{counted(world.size, 'device')}"
            )
        )


def _machine(
    config: RunConfig, device: torch.device, precision: ResolvedPrecision, world: World
) -> Machine:
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
    if config.deterministic:
        make_deterministic(device)
    return Machine(
        device=str(device),
        device_name=device_name(device),
        precision=precision,
        num_processes=world.size,
        num_threads=torch.get_num_threads(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        environment={name: os.environ[name] for name in _VARIABLES if name in os.environ},
    )


def _stored_device(stored: Execution, training: TrainingConfig, emit: Emit) -> torch.device:
    try:
        device = choose_device(stored.device)
    except UsageError:
        return choose_device(training.device)  # raises, unless it is auto
    if training.device == "auto" and (best := choose_device("auto")).type != device.type:
        message = (
            f"the run continues on {device}, where it began; --set training.device={best} "
            f"continues on {device_name(best)}, where numbers may differ in the last digits"
        )
        emit(Notice(message))
    return device


def _set_threads(stored: int, environment: Mapping[str, str], emit: Emit) -> None:
    here = torch.get_num_threads()
    if here == stored or any(environment.get(name) for name in _THREADS):
        return  # the number that the user set is used; if it differs, it is reported as a change
    torch.set_num_threads(stored)
    message = (
        f"the run continues with {stored} CPU thread{'s' * (stored > 1)}, as it began; to use "
        f"{here}, put {_THREADS[0]}={here} before the command (numbers may then differ in the last "
        "digits)"
    )
    emit(Notice(message))
