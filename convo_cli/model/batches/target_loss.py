"""Chunked loss at targets: other tokens get no logits, and the logits never exist all at once.

Logits are the largest tensor of training (tokens x vocabulary). Here each chunk of them is
computed, turned into loss and gradient, and dropped. The results that remain are as large as the
hidden states and the vocabulary matrix.

Shapes: N targets, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Logits computed at once: 32 MiB in fp32, or 1,048 targets for a vocabulary of 8,000. More is
# slower on a CPU.
_CHUNK_ELEMENTS = 1 << 23
# With too few targets, most time goes into adding to the gradient of a large vocabulary matrix. A
# vocabulary of 50,257 would get chunks of 166 targets; with this minimum it gets 98 MiB of logits.
_MIN_CHUNK_ROWS = 512


def target_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the sum of -log softmax(hidden @ weight.T + bias)[labels] in nats, and its terms.

    The sum is an fp32 scalar; the terms (N,) in fp32 have no gradient. ``hidden`` (N, D),
    ``weight`` (V, D), ``bias`` (V,) and ``labels`` (N,) are on one device.
    """
    hidden, weight, bias = _in_arithmetic(hidden, weight, bias)
    if not torch.is_grad_enabled():  # `ctx.needs_input_grad` ignores torch.no_grad
        hidden, weight = hidden.detach(), weight.detach()
        bias = None if bias is None else bias.detach()
    with torch.autocast(hidden.device.type, enabled=False):
        result: tuple[Tensor, Tensor] = _ChunkedNll.apply(hidden, weight, bias, labels)  # type: ignore[no-untyped-call]
    return result


def _in_arithmetic(
    hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the tensors in the type in which autocast computes a matrix product."""
    if not torch.is_autocast_enabled(hidden.device.type):
        return hidden, weight, bias
    dtype = torch.get_autocast_dtype(hidden.device.type)
    return hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _rows_at_once(weight: Tensor) -> int:
    return max(_MIN_CHUNK_ROWS, _CHUNK_ELEMENTS // len(weight))


def _exponentials(logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Replace the logits (n, V) by exp(logits - maximum); return them, their sums and the nll.

    ``chosen`` are the labels (n, 1), the sums have that shape too, the nll is (n,).
    """
    # In place: allocating a second array of this size takes as long as the arithmetic.
    logits.sub_(logits.amax(dim=1, keepdim=True))
    shifted = logits.gather(1, chosen)  # (n, 1)
    sums = logits.exp_().sum(dim=1, keepdim=True)  # (n, 1)
    return logits, sums, (sums.log() - shifted).squeeze(1)


class _ChunkedNll(torch.autograd.Function):
    """Computes the gradient in the forward pass, while the logits are in memory."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows = _rows_at_once(weight)
        needs_hidden, needs_weight, needs_bias, _ = ctx.needs_input_grad
        total, each = (torch.zeros(shape, device=hidden.device) for shape in ((), len(labels)))
        # fp16 ends at 65504. A gradient summed over many targets of one token exceeds that, so it
        # is scaled down.
        smaller = 1 / 64 if hidden.dtype == torch.float16 else 1.0
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        grad_bias = torch.zeros(len(weight), device=hidden.device) if needs_bias else None
        for begin in range(0, len(labels), rows):
            part = slice(begin, begin + rows)
            chosen = labels[part].unsqueeze(1)  # (n, 1)
            logits = torch.nn.functional.linear(hidden[part], weight, bias).float()  # (n, V)
            exponentials, sums, nll = _exponentials(logits, chosen)
            each[part] = nll
            total += nll.sum()
            if not any(ctx.needs_input_grad):
                continue
            grad = exponentials.div_(sums)  # (n, V): softmax …
            minus_one = torch.full_like(chosen, -1, dtype=grad.dtype)
            grad.scatter_add_(1, chosen, minus_one)  # … minus one at the label
            if grad_bias is not None:
                grad_bias += grad.sum(dim=0)
            grad = grad.to(hidden.dtype)
            if grad_hidden is not None:
                torch.mm(grad, weight, out=grad_hidden[part])
            if grad_weight is not None and weight.dtype == torch.float32:
                grad_weight.addmm_(grad.T, hidden[part])
            elif grad_weight is not None:
                grad_weight.add_(grad.T @ (hidden[part] * smaller), alpha=1 / smaller)
        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        ctx.dtype = hidden.dtype
        ctx.mark_non_differentiable(each)
        return total, each

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients times that of the loss, in the type of the forward pass."""
        # Scaled in place, so they are valid for only one backward pass.
        gradients, ctx.gradients = ctx.gradients, None
        scaled = (
            None if grad is None else grad.float().mul_(grad_output).to(ctx.dtype)
            for grad in gradients
        )
        return (*scaled, None)
