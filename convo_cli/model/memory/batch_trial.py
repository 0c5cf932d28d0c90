"""Trial of a batch: one real forward and backward pass, its peak memory and its duration."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from convo_cli.errors import is_out_of_memory
from convo_cli.model.batches.loss import Batch, LossOf
from convo_cli.model.usage import process_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_INTERVAL = 0.001
"""Seconds between two readings of the memory of the process."""


@dataclass(frozen=True)
class Trial:
    """Result of a forward and backward pass."""

    peak_bytes: int
    """Peak memory minus that before the pass: activations, logits and gradients.

    On a CPU it is resident memory of the process, on CUDA that of torch's allocator.
    """
    seconds: float


def try_batch(model: PreTrainedModel, nll_sum: LossOf, batch: Batch) -> Trial | None:
    """Run the passes of a micro-batch in training mode; return None if memory ran out.

    Weights, mode and random state of the model stay as they are, and its gradients become None.
    On a CPU, memory that the machine does not have can end the process instead of failing, so
    compare an estimate with `free_bytes` first.
    """
    device = model.device
    was_training = model.training
    devices = [device] if device.type == "cuda" else []
    model.zero_grad(set_to_none=True)
    result = None
    with torch.random.fork_rng(devices):
        model.train()
        try:
            with _peak_of(device) as read:
                started = time.perf_counter()
                nll_sum(model, batch.to(device)).backward()
                peak = read()
                result = Trial(peak, time.perf_counter() - started)
        except (MemoryError, OSError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        finally:
            model.zero_grad(set_to_none=True)
            model.train(was_training)
    release(device)
    return result


def release(device: torch.device) -> None:
    """Give memory that is free inside this process back to the system or the driver."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "cpu":
        try:  # only glibc has it; other allocators give back more by themselves
            ctypes.CDLL(None).malloc_trim(0)
        except (AttributeError, OSError, TypeError):
            return


@contextmanager
def _peak_of(device: torch.device) -> Iterator[Callable[[], int]]:
    """Yield a function that returns the peak of memory in the block so far, above its start."""
    release(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)

        def read() -> int:
            torch.cuda.synchronize(device)
            return torch.cuda.max_memory_allocated(device) - before

        yield read
        return
    start, highest = process_memory()
    peak, is_over = start, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(_INTERVAL):
            peak = max(peak, process_memory()[0])

    def read_process() -> int:
        now, highest_now = process_memory()
        # The system's own record is exact, but counts only if this block has raised it.
        return max(peak, now, highest_now if highest_now > highest else 0) - start

    thread = threading.Thread(target=watch, name="convo-memory", daemon=True)
    thread.start()
    try:
        yield read_process
    finally:
        is_over.set()
        thread.join()
