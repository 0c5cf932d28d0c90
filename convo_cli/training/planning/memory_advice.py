"""Advice for a run that needs more memory than there is: three settings and what each saves.

A run that cannot fit at all is refused before step 1. A run that does not fit by the estimate gets
only a warning, because the estimate may be wrong and another program may end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import torch

from convo_cli.config.schema import PretrainedModel, ScratchConfig
from convo_cli.errors import OutOfMemoryError, first_line, is_out_of_memory, typeable
from convo_cli.events import Emit, Notice
from convo_cli.model.batches.loss import Batch
from convo_cli.model.nvml import measured
from convo_cli.report.shown import size
from convo_cli.runs.directory import RunDirectory
from convo_cli.training.planning.longest_batch import longest_of_training
from convo_cli.training.planning.run_memory import (
    Room,
    RunMemory,
    activations_in_memory,
    most_activations,
    room_of,
    tensor_bytes,
    training_memory,
    training_peak,
)
from convo_cli.training.run_parts import Parts

_NUM_NAMED = 3  # settings in a hint
_LEAST_SHARE = 0.01
"""Share of the peak without the program that a setting must save to be named."""
_MARGIN = 0.1
"""Share of the same that a setting must save beyond what is missing, as estimates have errors."""
_LEAST_LENGTH = 64
"""Lowest dialogue.max_length that is proposed, in tokens."""
_RANK = 16  # model.lora.rank that is proposed
_LORA_SAVES = 0.97
"""Part of the gradients and moments that LoRA with this rank does not need."""
_NO_SETTING = "use a smaller model or a device with more memory"
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
    is_enough: bool = True
    """Whether the run fits with this setting alone."""

    def __str__(self) -> str:
        return f"{self.key}: {self._value} (saves {size(self.saved_bytes)})"

    @property
    def option(self) -> str:
        """Return the option of a command that sets it."""
        return f"--set {self.key}={self._value}"

    @property
    def is_fixed(self) -> bool:
        """Return whether a resume cannot change it."""
        return self.key.startswith(("model.", "dialogue."))

    @property
    def _value(self) -> str:
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)


def require_memory(parts: Parts, emit: Emit, room: Room | None = None) -> None:
    """Warn if the run does not fit by the estimate.

    ``room`` is measured by default; if that fails, nothing is required. Raises OutOfMemoryError if
    the run cannot fit. Costs milliseconds, unless memory is scarce.
    """
    room = room or measured(lambda: room_of(parts, parts.world.size))
    if room is None:
        return
    _, gradients, moments = tensor_bytes(parts)
    # A step needs the trained weights and all that AdamW keeps of them, whatever its batches are.
    needed = 2 * gradients + moments
    if needed <= room.limit and gradients + moments + most_activations(parts) <= room.free:
        return
    memory = training_memory(parts, parts.world.size)
    hint = settings_text(savings(parts, memory, room.total))
    if needed > room.limit:
        raise OutOfMemoryError(
            f"not enough memory: trained weights, their gradients and AdamW's moments need "
            f"{size(needed)}, but {parts.device} has only {size(room.limit)}",
            hint=hint,
        )
    if memory.peak > room.total:
        emit(
            Notice(
                f"the run may run out of memory: it needs about {size(memory.peak)}, but "
                f"only {size(room.total)} are free; {hint}",
                is_warning=True,
            )
        )


@contextmanager
def naming_settings(parts: Parts, run: RunDirectory, *, has_moments: bool) -> Iterator[None]:
    """Turn a lack of memory in the steps of a run into an error that names settings to change."""
    room = measured(lambda: Room.of(parts.device, parts.world.size))
    moments = tensor_bytes(parts)[2] if has_moments else 0
    try:
        yield
        return
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        failure, message = error, first_line(error)
    # Outside the handler, which would keep the tensors of the failed pass.
    hint = _FALLBACK
    with suppress(MemoryError, RuntimeError):
        if room is not None:
            memory = training_memory(parts, parts.world.size, room.held - moments)
            hint = _to_continue(run, savings(parts, memory, min(room.total, memory.peak)))
    raise OutOfMemoryError(
        f"not enough memory ({message})", hint=f"{hint}; everything saved so far is intact"
    ) from failure


def _to_continue(run: RunDirectory, found: list[Saving]) -> str:
    """Return the settings as a hint, with the command that continues the run with one of them."""
    enough = [one for one in found if one.is_enough]
    named = enough or found
    free = [one for one in named if not one.is_fixed]
    fixed = [one for one in named if one.is_fixed]
    hints = []
    if free:
        options = " ".join(one.option for one in (free[:1] if enough else free))
        hints.append(f"{_set(free)}: convo resume {typeable(run.path)} {options}")
    if fixed:
        hints.append(f"in a new run, {_set(fixed)}{' too' if free and not enough else ''}")
    return "; ".join(hints) or _NO_SETTING


def settings_text(found: list[Saving]) -> str:
    """Return the settings as a hint."""
    if not found:
        return _NO_SETTING
    rest = [str(one) for one in found if not one.is_enough]
    enough = [one for one in found if one.is_enough]
    if enough and rest:
        return f"{_set(enough)} (not enough alone: {', '.join(rest)})"
    return _set(found)


def _set(settings: list[Saving]) -> str:
    """Return "set A or B", or "set A and B" if they are enough only together."""
    *others, last = map(str, settings)
    word = "or" if settings[0].is_enough else "and"
    return f"set {', '.join(others)} {word} {last}" if others else f"set {last}"


def savings(parts: Parts, memory: RunMemory, room: int) -> list[Saving]:
    """Return the settings that save most, those that are enough first.

    Each has a value with which the run fits if there is one.
    """
    batch, _ = longest_of_training(parts, parts.world.size)
    whole = memory.peak - memory.program
    missing = memory.peak - room + round(_MARGIN * whole)
    found = [
        replace(one, is_enough=one.saved_bytes >= missing)
        for one in _possible(parts, memory, batch, missing)
        if one.saved_bytes >= max(1, round(_LEAST_SHARE * whole))
    ]
    return sorted(found, key=lambda one: (not one.is_enough, -one.saved_bytes))[:_NUM_NAMED]


def _possible(parts: Parts, memory: RunMemory, batch: Batch, missing: int) -> Iterator[Saving]:
    training, origin = parts.config.training, parts.config.model.origin
    _, gradients, _ = tensor_bytes(parts)
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
        if saved(value) >= missing:
            break
    return value
