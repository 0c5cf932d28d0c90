"""Proof that a computation gives the same loss and gradient as one dialogue at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from convo_cli.model.adapters.lora import plain_module
from convo_cli.model.batches import loss
from convo_cli.model.batches.loss import Batch, LossOf

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Autocast = Callable[[], AbstractContextManager[None]]

# Largest relative difference of two losses and of two gradients; rounding reaches a tenth of it.
_TOLERANCES = {
    torch.float32: (2e-5, 1e-3),
    torch.bfloat16: (1e-2, 5e-2),
    torch.float16: (2e-3, 1e-2),
}
# Absolute part of the tolerance, in nats per target: near a loss of 0, rounding is not small
# relative to the loss. The gradient of a target's loss with respect to its logits (softmax minus
# one-hot) is about as large as the loss there and has an absolute rounding error too: 2e-7 measured
# in fp32, 1e-6 in fp16. So gradients may differ in proportion: by their size times this value over
# the loss. A model that sees a neighbour differs by 1e-3 nats per target at a loss of 1e-5
# (tests/laws/test_near_zero.py).
_ABSOLUTE = 1e-5


class EqualityProof:
    """Compares a computation with the loss and gradient of one example at a time.

    The expected values come from transformers' own code.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        alone: Sequence[Batch],
        autocast: Autocast,
        *,
        is_trained: bool,
    ) -> None:
        self._model, self._autocast, self._is_trained = model, autocast, is_trained
        dtype = arithmetic(model, autocast)
        self._loss_tolerance, self._tolerance = _TOLERANCES.get(dtype, _TOLERANCES[torch.float32])
        self._absolute = _ABSOLUTE * sum(batch.num_targets for batch in alone)
        self._expected = self._gradient(alone, loss.plain_nll_sum)

    def is_matrix_product(self, batch: Batch) -> bool:
        """Return whether the model has a body and a linear head, and the logits are their product.

        Near a loss of 0 equal losses do not prove this, because any large logit of the target gives
        the same loss.
        """
        model = self._model
        head = plain_module(model.get_output_embeddings())
        if model.base_model is model or not isinstance(head, torch.nn.Linear):
            return False
        with self._autocast():
            return loss.head_error(model, batch.to(model.device)) <= self._tolerance

    def difference_of(self, batch: Batch, nll_sum: LossOf) -> str | None:
        """Return how the loss or gradient of this batch differs; None if they are the same."""
        expected_loss, expected = self._expected
        actual_loss, actual = self._gradient([batch], nll_sum)
        allowed = self._loss_tolerance * expected_loss + self._absolute
        # `not … <=` instead of `>`, so that a NaN loss counts as a difference.
        if not abs(actual_loss - expected_loss) <= allowed:
            return (
                f"packing would change the loss: {actual_loss:.6g} instead of "
                f"{expected_loss:.6g} for one dialogue at a time"
            )
        if not self._is_trained:
            return None
        # One norm over all parameters: the gradient of a single one may be pure rounding, such as
        # that of a key bias.
        size = torch.stack([gradient.norm() for gradient in expected]).norm()
        error = torch.stack([(a - b).norm() for a, b in zip(actual, expected, strict=True)]).norm()
        if not error <= (self._tolerance + self._absolute / max(expected_loss, 1e-12)) * size:
            return (
                f"packing would change the gradient by {float(error / size):.2g} of its size, "
                "compared with one dialogue at a time"
            )
        return None

    def _gradient(self, batches: Sequence[Batch], nll_sum: LossOf) -> tuple[float, list[Tensor]]:
        parameters = [weight for weight in self._model.parameters() if weight.requires_grad]
        total = 0.0
        for batch in batches:
            with self._autocast(), torch.set_grad_enabled(self._is_trained):
                nll = nll_sum(self._model, batch.to(self._model.device))
            if self._is_trained:
                nll.backward()
            total += float(nll.detach())
        if not self._is_trained:
            return total, []
        gradients = [
            torch.zeros_like(weight) if weight.grad is None else weight.grad.detach()
            for weight in parameters
        ]
        self._model.zero_grad(set_to_none=True)
        return total, gradients


def arithmetic(model: PreTrainedModel, autocast: Autocast) -> torch.dtype:
    """Return the type in which the model computes."""
    with autocast():
        is_autocast = torch.is_autocast_enabled(model.device.type)
        return torch.get_autocast_dtype(model.device.type) if is_autocast else model.dtype
