"""What a step costs: the operations of its matrix products, against what the device can do, and memory."""

from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING

import torch

from convo_cli.model.loss import Batch
from convo_cli.runs.provenance.execution import ResolvedPrecision

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Dense operations a second in 16 bits, from the makers' data sheets; fp32 through tensor cores is not used.
_PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "T4": 65e12}


class FlopCounter:
    """Floating-point operations of forward and backward, as model FLOPs utilisation counts them.

    Six for each weight of the body and token, six for each element of the vocabulary matrix and target, and attention
    over the half of its square that is causal. What padding costs does not count: it is waste.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
        head = model.get_output_embeddings()
        self._head = head.weight.numel() if isinstance(head, torch.nn.Linear) else 0
        apart = embeddings | ({id(head.weight)} if self._head else set())
        self._body = sum(p.numel() for p in model.parameters() if p.ndim >= 2 and id(p) not in apart)
        config = model.config.get_text_config()
        self._attention: int = 6 * config.num_hidden_layers * config.hidden_size

    def __call__(self, batch: Batch) -> float:
        """Operations for one batch."""
        squares = float((batch.lengths**2).sum())
        matrices = self._body * batch.num_tokens + self._head * batch.num_targets
        return float(6 * matrices + self._attention * squares)


def peak_flops(device: torch.device, precision: ResolvedPrecision) -> float | None:
    """Dense operations a second that the device's maker states; None where convo does not know."""
    if device.type != "cuda" or precision == "fp32":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in _PEAKS.items() if known in name), None)


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: of the GPU's memory where there is one, else of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
