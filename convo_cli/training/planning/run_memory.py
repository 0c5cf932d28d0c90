"""Peak memory of a run by part, computed before its first step.

Weights, gradients and AdamW's moments have known sizes. The rest comes from the passes of the
longest micro-batch, and of the longest batch of an evaluation, on fake tensors
(`model/memory/live_tensors`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from convo_cli.model.batches.loss import Batch, LossOf
from convo_cli.model.create import num_embeddings
from convo_cli.model.device import autocast_for
from convo_cli.model.memory.batch_trial import release
from convo_cli.model.memory.free import free_bytes, limit_bytes
from convo_cli.model.memory.live_tensors import LivePeak, live_peak
from convo_cli.model.usage import process_memory
from convo_cli.training.planning.longest_batch import longest_of_evaluation, longest_of_training

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from convo_cli.training.run_parts import Parts

_HEAP, _RECOMPUTED = 0.2, 0.45
"""Memory on a CPU beside the activations, for each byte of them if all were kept.

glibc keeps freed memory between tensors that still exist. Recomputing frees as many bytes as it
saves. Measured with 6x384 and SmolLM2-135M: 0.15 to 0.3, with gradient checkpointing 0.25 to 0.6.
"""
_MOST_PER_UNIT = 60  # fp32 numbers for each layer, token and unit of width: a bound
LATER = 50 * 2**20
"""Bytes of libraries that a run imports after its start, on a CPU: plots, logs and metrics."""


@dataclass(frozen=True)
class RunMemory:
    """Bytes of a process by part, at the moment of its peak.

    On CUDA they are those of torch's allocator, so the program has none.
    """

    program: int
    """Python, torch, and the data that is kept in memory."""
    weights: int
    gradients: int
    """Those at the peak: 0 if the only micro-batch of a step peaks before it has any."""
    moments: int
    activations: int
    logits: int
    loading: int = 0
    """Bytes by which loading and checking the model exceeded all other parts together."""

    @property
    def peak(self) -> int:
        """Return the sum of the parts."""
        return sum(getattr(self, field.name) for field in fields(self))


def training_memory(parts: Parts, num_processes: int = 1, held: int | None = None) -> RunMemory:
    """Return the memory of the process that holds the longest micro-batch, without evaluations.

    An evaluation takes smaller batches if memory runs out, so it does not count. ``held`` is what
    the process holds before its first step; by default, what it holds now.
    """
    batch, is_later = longest_of_training(parts, num_processes)
    peak = training_peak(parts, batch, has_gradients=is_later)
    activations = activations_in_memory(
        parts, batch, peak, saves_memory=parts.config.training.gradient_checkpointing
    )
    return with_activations(parts, peak, activations, held)


def with_activations(
    parts: Parts, peak: LivePeak, activations: int, held: int | None = None
) -> RunMemory:
    """Return the memory of a micro-batch whose activations take so many bytes.

    They are at most what auto measured for the worst pass: a size that fits there fits here.
    """
    if parts.fitted is not None:
        activations = max(0, min(activations, parts.fitted.needed - peak.logits))
    return memory_at(parts, replace(peak, activations=activations), held)


def higher_peak(memory: RunMemory, other: RunMemory | None) -> RunMemory:
    """Return the estimate with the higher peak."""
    return memory if other is None or other.peak < memory.peak else other


def evaluation_memory(parts: Parts) -> RunMemory | None:
    """Return the memory of an evaluation during the run; None without one."""
    if (batch := longest_of_evaluation(parts)) is None:
        return None
    peak = _live_peak(parts, batch, has_gradients=False, is_trained=False)
    # The gradients of the last step exist until the next one.
    return memory_at(parts, replace(peak, gradients=tensor_bytes(parts)[1]))


def memory_at(parts: Parts, peak: LivePeak, held: int | None = None) -> RunMemory:
    """Return the memory with these tensors beside what the process held before them."""
    weights, all_gradients, moments = tensor_bytes(parts)
    if held is None:
        release(parts.device)  # so that freed memory, which is reused, does not count
        held = held_bytes(parts.device)
    libraries = LATER if parts.device.type == "cpu" else 0
    return RunMemory(
        program=max(0, held - model_bytes(parts.model)) + libraries,
        weights=weights,
        gradients=min(peak.gradients, all_gradients),
        moments=moments,
        activations=peak.activations,
        logits=peak.logits,
    )


def training_peak(
    parts: Parts, batch: Batch, *, has_gradients: bool, saves_memory: bool | None = None
) -> LivePeak:
    """Return the live tensors of a micro-batch at its peak."""
    return _live_peak(parts, batch, has_gradients=has_gradients, saves_memory=saves_memory)


def _live_peak(parts: Parts, batch: Batch, **options: Any) -> LivePeak:
    """Return the live tensors of a batch, or a bound for a model that fake tensors cannot run."""
    try:
        return live_peak(parts.model, loss_of(parts), batch, **options)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError):
        return LivePeak(activations=_most_of(parts.model, batch.input_ids.numel()))


def most_activations(parts: Parts) -> int:
    """Return an upper bound of the bytes of the longest micro-batch's activations, at no cost."""
    batch, _ = longest_of_training(parts, parts.world.size)
    return _most_of(parts.model, batch.input_ids.numel())


def _most_of(model: PreTrainedModel, num_tokens: int) -> int:
    config = model.config.get_text_config()
    # GPT-2 keeps 34 such numbers, and Llama 25.
    width = max(config.hidden_size, (getattr(config, "intermediate_size", None) or 0) // 3)
    of_layers = _MOST_PER_UNIT * num_tokens * config.num_hidden_layers * width
    rows = num_embeddings(model)
    most: int = 4 * (of_layers + max(2**23, 512 * rows) + rows * config.hidden_size)
    return most


def loss_of(parts: Parts) -> LossOf:
    """Return the computation of a batch's loss, in the precision of the run."""
    autocast = autocast_for(parts.device, parts.execution.precision)

    def nll_sum(model: PreTrainedModel, batch: Batch) -> Tensor:
        with autocast():
            return parts.batching.nll_sum(model, batch)

    return nll_sum


def tensor_bytes(parts: Parts) -> tuple[int, int, int]:
    """Return the bytes of weights, gradients and moments that a process holds between steps."""
    size = parts.world.size if parts.execution.sharding == "full" else 1
    trained = _bytes(one for one in parts.model.parameters() if one.requires_grad)
    return model_bytes(parts.model) // size, trained // size, 2 * trained // size


def model_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of parameters and buffers."""
    return _bytes(model.parameters()) + _bytes(model.buffers())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def activations_in_memory(parts: Parts, batch: Batch, peak: LivePeak, *, saves_memory: bool) -> int:
    """Return the bytes of activations, on a CPU with memory that the allocator does not reuse."""
    if parts.device.type != "cpu":
        return peak.activations
    if not saves_memory:
        return round((1 + _HEAP) * peak.activations)
    kept = training_peak(parts, batch, has_gradients=False, saves_memory=False)
    return peak.activations + round(_RECOMPUTED * kept.activations)


def held_bytes(device: torch.device) -> int:
    """Return the bytes that this process holds now on a device."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    return process_memory()[0]


@dataclass(frozen=True)
class Room:
    """Memory of a device for one of the processes on it, in bytes."""

    held: int
    """What the process holds."""
    free: int
    """What it can still allocate."""
    limit: int
    """The most that it could ever have, if no other program used any."""

    @property
    def total(self) -> int:
        """Return what the process may hold in all."""
        return self.held + self.free

    @classmethod
    def of(cls, device: torch.device, num_processes: int = 1) -> Room:
        """Measure it; on a CPU, ``num_processes`` share the machine."""
        sharing = num_processes if device.type == "cpu" else 1
        free = free_bytes(device, num_processes)
        return cls(held_bytes(device), free, limit_bytes(device) // sharing)


def room_of(parts: Parts, num_processes: int = 1) -> Room:
    """Return the memory for a run: with auto, what it was when auto chose a size that fits."""
    room = Room.of(parts.device, num_processes)
    if parts.fitted is None or num_processes != parts.world.size:
        return room
    return replace(room, free=max(room.free, parts.fitted.room - room.held))
