"""Memory bandwidth: the measured one of a device, and the bytes that a new token must read.

A token of one row reads every weight once, so this is the limit of its speed: tokens per second are
at most `read_bandwidth` / `weight_bytes`.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_BUFFER_BYTES = {"cpu": 2**26}
"""Far more than the caches of one core; filling it is most of the time on a CPU."""
_BUFFER_BYTES_ELSEWHERE = 2**29
_WIDTH = 4096
_SECONDS = 0.05


@lru_cache
def read_bandwidth(device: torch.device) -> float:
    """Measure the bytes per second that a device reads, with the current number of threads.

    The first call takes about 0.1 seconds. Other programs on the machine make the result smaller.
    Raises torch's error if the buffer does not fit the memory.
    """
    size = _BUFFER_BYTES.get(device.type, _BUFFER_BYTES_ELSEWHERE)
    matrix = torch.ones((size // 4 // _WIDTH, _WIDTH), device=device)
    vector = torch.ones(_WIDTH, device=device)
    best, end = 0.0, time.perf_counter() + _SECONDS
    while not best or time.perf_counter() < end:
        started = time.perf_counter()
        torch.mv(matrix, vector)[0].item()  # waits for the device
        best = max(best, size / (time.perf_counter() - started))
    return best


def weight_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of the weights that one token reads, each shared weight once.

    Of an embedding that is not the head too, a token reads one row, which does not count. All
    experts of a mixture count, so it has a higher limit than `read_bandwidth` / `weight_bytes`.
    """
    head: Any = model.get_output_embeddings()
    tables = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding) and (head is None or module.weight is not head.weight)
    }
    return sum(
        weight.numel() * weight.element_size()
        for weight in model.parameters()
        if id(weight) not in tables
    )
