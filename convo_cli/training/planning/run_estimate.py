"""Estimate of memory and time of a run, from one real pass if that is quick and fits."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from convo_cli.model.batches.batching import proof_examples
from convo_cli.model.batches.loss import Batch
from convo_cli.model.cost import FlopCounter
from convo_cli.model.memory.batch_trial import Trial, release, try_batch
from convo_cli.model.nvml import measured
from convo_cli.model.usage import process_memory
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET
from convo_cli.training.planning.longest_batch import (
    batches_of_step,
    longest_of_training,
    training_batch,
)
from convo_cli.training.planning.memory_advice import Saving, savings
from convo_cli.training.planning.run_memory import (
    RunMemory,
    evaluation_memory,
    held_bytes,
    higher_peak,
    loss_of,
    room_of,
    training_memory,
    training_peak,
    with_activations,
)
from convo_cli.training.run_parts import Parts

_QUICK = 20.0
"""Longest trial in seconds."""
_SAFE = 0.7
"""Share of the free memory that a trial may need by the computed estimate."""
_GROWTH = 1.1
"""Growth of the activations' memory over the steps of a run, on a CPU.

Freed memory is not reused for tensors of other lengths. Without this factor, estimates of 6x384 and
SmolLM2-135M were 4 to 14 % too low.
"""
_NUM_STEPS = 8
"""Steps whose operations are counted for the mean."""
_UPDATE_BYTES = 40
"""Bytes of memory that clipping and AdamW read and write for each trained parameter, in fp32."""


@dataclass(frozen=True)
class RunEstimate:
    """Estimates of a run before its first step."""

    memory: RunMemory
    room: int
    """Bytes that this process may use in all: free memory and what it already holds."""
    is_measured: bool
    """Whether the longest micro-batch was run; else its memory is computed and its time scaled."""
    savings: tuple[Saving, ...]
    """Settings to change if the run does not fit."""
    seconds_per_step: float | None
    """Mean time of a step without evaluations and checkpoints; None if no batch could be run."""


def estimate_run(parts: Parts, num_processes: int = 1) -> RunEstimate | None:
    """Estimate memory and time of a run; None if the memory of the machine cannot be read.

    Weights and random state stay as they are.
    """
    known = measured(lambda: room_of(parts, num_processes))
    if known is None:
        return None
    room, loaded = known.total, _peak_so_far(parts.device)
    training = training_memory(parts, num_processes)
    count, nll_sum = FlopCounter(parts.model), loss_of(parts)
    examples = proof_examples(parts.data.train, (ASSISTANT_TARGET, USER_TARGET))
    short = parts.batching.batch(examples, (ASSISTANT_TARGET, USER_TARGET))
    longest, is_later = longest_of_training(parts, num_processes)
    batch, is_measured = short, False
    needed = training.peak - training.moments
    trial = try_batch(parts.model, nll_sum, short) if needed < _SAFE * room else None
    if trial is not None and count(longest) / count(short) * trial.seconds < _QUICK:
        release(parts.device)
        held = held_bytes(parts.device)
        whole = try_batch(parts.model, nll_sum, longest)
        if whole is not None:
            batch, trial, is_measured = longest, whole, True
            training = _measured(parts, longest, whole, held, is_later=is_later)
    scored = evaluation_memory(parts)
    fits = scored is not None and scored.peak <= room  # else its batches become smaller
    memory = higher_peak(training, scored) if fits else training
    memory = replace(memory, loading=max(0, loaded - memory.peak))
    seconds = None
    if trial is not None:
        seconds = trial.seconds * _operations_per_step(parts, count, num_processes) / count(batch)
        seconds += _update_seconds(parts)
    found = savings(parts, training, room) if training.peak > room else []
    return RunEstimate(memory, room, is_measured, tuple(found), seconds)


def _measured(parts: Parts, batch: Batch, trial: Trial, held: int, *, is_later: bool) -> RunMemory:
    """Return the memory of a run whose longest micro-batch is that of a trial."""
    alone = peak = training_peak(parts, batch, has_gradients=False)
    if is_later:  # the trial had no gradients of an earlier micro-batch
        peak = training_peak(parts, batch, has_gradients=True)
    above = trial.peak_bytes - alone.gradients - alone.logits
    activations = max(0, above + peak.activations - alone.activations)
    if parts.device.type == "cpu":
        activations = round(_GROWTH * activations)
    return with_activations(parts, peak, activations, held)


def _peak_so_far(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return process_memory()[1] if device.type == "cpu" else 0


def _operations_per_step(parts: Parts, count: FlopCounter, num_processes: int) -> float:
    """Return the mean operations of a step in one process."""
    steps = {step * parts.max_steps // _NUM_STEPS for step in range(_NUM_STEPS)}
    operations = [
        sum(count(training_batch(parts, chosen)) for chosen in batches)
        for batches in (batches_of_step(parts, step, num_processes) for step in steps)
    ]
    return sum(operations) / len(operations)


def _update_seconds(parts: Parts) -> float:
    """Return the time of clipping and AdamW, from the time of a copy of 32 MiB."""
    trained = sum(one.numel() for one in parts.model.parameters() if one.requires_grad)
    source = torch.empty(2**23, device=parts.device).fill_(0)
    target = torch.empty_like(source).fill_(0)
    _wait(parts.device)
    started = time.perf_counter()
    target.copy_(source)
    _wait(parts.device)
    return (time.perf_counter() - started) / (2 * source.nbytes) * _UPDATE_BYTES * trained


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
