"""Cost of a step: operations of its matrix products, and peak operations of the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from convo_cli.model.adapters.lora import plain_module
from convo_cli.model.batches.loss import Batch
from convo_cli.runs.provenance.execution import ResolvedPrecision

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Dense operations per second in 16 bits, from the makers' data sheets. convo does not run fp32 on
# tensor cores.
_PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "T4": 65e12,
}


class FlopCounter:
    """Counts floating-point operations of forward and backward, as in model FLOPs utilisation.

    Six per weight of the body and token (four if it is frozen), as many per element of the
    vocabulary matrix and target, and attention over the causal half of its square. Operations on
    padding are waste and do not count.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        embeddings = {
            id(module.weight)
            for module in model.modules()
            if isinstance(module, torch.nn.Embedding)
        }
        head = plain_module(model.get_output_embeddings())
        self._head = _operations(head.weight) if isinstance(head, torch.nn.Linear) else 0
        apart = embeddings | ({id(head.weight)} if self._head else set())
        body = (p for p in model.parameters() if p.ndim >= 2 and id(p) not in apart)
        self._body = sum(map(_operations, body))
        config = model.config.get_text_config()
        self._attention: int = 6 * config.num_hidden_layers * config.hidden_size

    def __call__(self, batch: Batch) -> float:
        """Return the operations for one batch."""
        squares = float((batch.lengths**2).sum())
        matrices = self._body * batch.num_tokens + self._head * batch.num_targets
        return float(matrices + self._attention * squares)


def _operations(weight: torch.Tensor) -> int:
    """Return the operations of one input: forward, its gradient, and that of a trained weight."""
    return (6 if weight.requires_grad else 4) * weight.numel()


def peak_flops(device: torch.device, precision: ResolvedPrecision) -> float | None:
    """Return the device's dense operations per second; None if convo does not know them."""
    if device.type != "cuda" or precision == "fp32":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in _PEAKS.items() if known in name), None)
