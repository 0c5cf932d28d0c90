"""Advice for a run that needs more memory than there is: three settings and what each saves.

A run that cannot fit at all is refused before step 1. A run that does not fit by the estimate gets
only a warning, because the estimate may be wrong and another program may end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from convo_cli.config.schema import PretrainedModel, ScratchConfig
from convo_cli.errors import OutOfMemoryError, first_line, is_out_of_memory
from convo_cli.events import Emit, Notice
from convo_cli.model.batches.loss import Batch
from convo_cli.model.memory.free import limit_bytes
from convo_cli.report.shown import size
from convo_cli.training.planning.longest_batch import longest_of_training
from convo_cli.training.planning.run_memory import (
    RunMemory,
    activations_in_memory,
    held_bytes,
    most_activations,
    room_bytes,
    tensor_bytes,
    training_memory,
    training_peak,
)

if TYPE_CHECKING:
    from convo_cli.training.build import Parts

_NUM_NAMED = 3  # settings in a hint
_LEAST_SHARE = 0.01
"""Share of the peak without the program that a setting must save to be named."""
_LEAST_LENGTH = 64
"""Lowest dialogue.max_length that is proposed, in tokens."""
_RANK = 16  # model.lora.rank that is proposed
_LORA_SAVES = 0.97
"""Part of the gradients and moments that LoRA with this rank does not need."""
_FALLBACK = (
    "use a smaller model, training.micro_batch_size: 1, a lower dialogue.max_length, or "
    "training.gradient_checkpointing: true"
)


@dataclass(frozen=True)
class Saving:
    """A setting that makes a run need less memory."""

    key: str
    value: int | str | bool
    saved_bytes: int

    def __str__(self) -> str:
        value = str(self.value).lower() if isinstance(self.value, bool) else self.value
        return f"{self.key}: {value} (saves {size(self.saved_bytes)})"


def require_memory(parts: Parts, emit: Emit) -> Parts:
    """Return the parts; warn if the run does not fit by the estimate.

    Raises OutOfMemoryError if it cannot fit. Costs milliseconds, unless memory is scarce.
    """
    sharing = parts.world.size if parts.device.type == "cpu" else 1
    _, gradients, moments = tensor_bytes(parts)
    room = room_bytes(parts.device, parts.world.size)
    # A step needs the trained weights and all that AdamW keeps of them, whatever its batches are.
    needed, most = 2 * gradients + moments, limit_bytes(parts.device) // sharing
    is_tight = gradients + moments + most_activations(parts) > room - held_bytes(parts.device)
    if needed <= most and not is_tight:
        return parts
    memory = training_memory(parts, parts.world.size)
    hint = settings_text(savings(parts, memory, room))
    if needed > most:
        raise OutOfMemoryError(
            f"not enough memory: trained weights, their gradients and AdamW's moments need "
            f"{size(needed)}, but {parts.device} has only {size(most)}",
            hint=hint,
        )
    if memory.peak > room:
        emit(
            Notice(
                f"the run may run out of memory: it needs about {size(memory.peak)}, but "
                f"only {size(room)} are free; {hint}",
                is_warning=True,
            )
        )
    return parts


@contextmanager
def naming_settings(parts: Parts, *, has_moments: bool) -> Iterator[None]:
    """Turn a lack of memory in the block into an error that names the settings to change."""
    held = held_bytes(parts.device) - (tensor_bytes(parts)[2] if has_moments else 0)
    room = room_bytes(parts.device, parts.world.size)
    try:
        yield
        return
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        failure, message = error, first_line(error)
    # Outside the handler, which would keep the tensors of the failed pass.
    try:
        memory = training_memory(parts, parts.world.size, held)
        hint = settings_text(savings(parts, memory, room))
    except (MemoryError, RuntimeError):
        hint = _FALLBACK
    raise OutOfMemoryError(
        f"not enough memory ({message})", hint=f"{hint}; everything saved so far is intact"
    ) from failure


def settings_text(found: list[Saving]) -> str:
    """Return the settings as a hint."""
    if not found:
        return "use a smaller model or a device with more memory"
    *others, last = map(str, found)
    return f"set {', '.join(others)} or {last}" if others else f"set {last}"


def savings(parts: Parts, memory: RunMemory, room: int) -> list[Saving]:
    """Return the settings that save most, each with a value that makes the run fit if one does."""
    batch, _ = longest_of_training(parts, parts.world.size)
    least = max(1, round(_LEAST_SHARE * (memory.peak - memory.program)))
    found = [one for one in _possible(parts, memory, batch, room) if one.saved_bytes >= least]
    return sorted(found, key=lambda one: -one.saved_bytes)[:_NUM_NAMED]


def _possible(parts: Parts, memory: RunMemory, batch: Batch, room: int) -> Iterator[Saving]:
    training, origin = parts.config.training, parts.config.model.origin
    _, gradients, _ = tensor_bytes(parts)
    missing = memory.peak - room
    if (count := batch.num_examples) > 1:
        # The second micro-batch finds the gradients of the first.
        others = gradients - memory.gradients

        def saved(number: int) -> int:
            return round(memory.activations * (1 - number / count)) - others

        number = _first_enough(count, 1, saved, missing)
        yield Saving("training.micro_batch_size", number, saved(number))
    if not training.gradient_checkpointing and parts.model.supports_gradient_checkpointing:
        peak = training_peak(
            parts, batch, has_gradients=memory.gradients >= gradients, saves_memory=True
        )
        kept = activations_in_memory(parts, batch, peak, saves_memory=True)
        now = memory.activations + memory.logits + memory.gradients
        yield Saving(
            "training.gradient_checkpointing", True, now - kept - peak.logits - peak.gradients
        )
    lengths = batch.lengths
    if (longest := int(lengths.max())) > _LEAST_LENGTH:

        def shortened(length: int) -> int:
            left = int(lengths.clamp(max=length).sum()) / int(lengths.sum())
            return round(memory.activations * (1 - left))

        length = _first_enough(longest, _LEAST_LENGTH, shortened, missing)
        yield Saving("dialogue.max_length", length, shortened(length))
    if isinstance(origin, PretrainedModel) and parts.config.model.lora is None:
        yield Saving(
            "model.lora.rank", _RANK, round(_LORA_SAVES * (memory.gradients + memory.moments))
        )
    if isinstance(origin, ScratchConfig) and origin.layers > 1:
        layers = origin.layers // 2
        embeddings = parts.model.get_input_embeddings()
        share = 1 - embeddings.weight.numel() / parts.model.num_parameters()  # type: ignore[operator]
        of_layers = share * (memory.weights + memory.gradients + memory.moments)
        part = 1 - layers / origin.layers
        yield Saving("model.scratch.layers", layers, round(part * (of_layers + memory.activations)))
    if (
        parts.device.type == "cuda"
        and parts.execution.precision == "fp32"
        and torch.cuda.get_device_capability(parts.device) >= (8, 0)
    ):
        yield Saving("training.precision", "bf16", memory.activations // 2)


def _first_enough(start: int, least: int, saved: Callable[[int], int], missing: int) -> int:
    """Return the first of start / 2, start / 4 … that saves enough; ``least`` if none does."""
    value = start
    while value > least:
        value = max(least, value // 2)
        if saved(value) >= missing > 0:
            break
    return value
