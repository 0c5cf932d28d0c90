"""How examples become batches for one model, and the proof on real dialogues that it changes nothing.

A pack needs no padding, and its loss needs no logits of tokens that are not targets. Both depend on internals of a
model that transformers exposes but does not promise. So they are used only after this model, in this arithmetic, has
given the loss and the gradient that it gives for one dialogue at a time. A run makes this choice once: the proof allows
for rounding, and the size of rounding depends on the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convo_cli.config.schema import Packing
from convo_cli.errors import ModelError
from convo_cli.events import Emit, Notice
from convo_cli.model import loss
from convo_cli.model.attention import attention_of, kernel, use_packed_attention, why_not_packed
from convo_cli.model.loss import Batch
from convo_cli.runs.provenance.run_info import RunInfo, installed_packages
from convo_cli.tokens.store import Example, TokenStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    LossOf = Callable[[PreTrainedModel, Batch], Tensor]

Autocast = Callable[[], AbstractContextManager[None]]

_LONGEST_PROOF = 128  # tokens of a dialogue: the proof has to be done within seconds on a CPU too
# What a forward and backward pass costs beside its tokens, in tokens: 14 M and 124 M parameters on a CPU, where 32 to
# 256 were alike.
_PASS_COST = 64
# Largest difference of two losses and of two gradients, relative to their size; rounding alone stays a tenth of it.
_TOLERANCES = {torch.float32: (2e-5, 1e-3), torch.bfloat16: (1e-2, 5e-2), torch.float16: (2e-3, 1e-2)}
# The absolute part of the tolerance, in nats a target: near a loss of 0 rounding is not small against the loss. The
# gradient of a target's loss with respect to its logits (softmax minus one-hot) is about as large as that loss near 0
# and has an absolute error of rounding too: 2e-7 measured in fp32, 1e-6 in fp16. So the gradients may differ by as much
# as losses that differ by this would, their size times this over the loss. A model that sees a neighbour differs by
# 1e-3 nats a target at a loss of 1e-5 (tests/laws/test_near_zero.py).
_ABSOLUTE = 1e-5


@dataclass(frozen=True)
class Batching:
    """How examples become batches, and how their loss is computed: the choice of `choose_batching`."""

    is_packed: bool
    has_plain_head: bool
    """Whether the logits are the last hidden states times the output embeddings, and nothing more."""
    pad_id: int
    why_padded: str | None = None
    attention: str = "sdpa"
    """The name of the attention kernel."""

    def batch(self, examples: Sequence[Example], target_kinds: Collection[int]) -> Batch:
        """The examples as the model takes them."""
        if self.is_packed:
            return loss.pack(examples, target_kinds)
        return loss.pad(examples, target_kinds, self.pad_id)

    def split(self, lengths: NDArray[np.int64], most: int) -> list[slice]:
        """Examples of these lengths, ascending, as forward passes of at most ``most``.

        Padded ones are cut where padding them to one width would cost more than another pass does.
        """
        slices, end = [], len(lengths)
        while end:
            begin = max(0, end - most)
            if not self.is_packed:
                # Padded to its longest dialogue alone, a step of DailyDialog is 0.45 full; cut here it is 0.91 full, at
                # 1.7 times the speed (6 layers of width 384 on a CPU).
                padding = np.cumsum(lengths[end - 1] - lengths[begin:end][::-1])  # (n,) if one, two … more are in it
                begin = end - int(np.searchsorted(padding, _PASS_COST, side="right"))
            slices.append(slice(begin, end))
            end = begin
        return slices[::-1]

    def num_slots(self, num_tokens: int, *, longest: int, count: int) -> int:
        """How many tokens, with padding, a batch of ``count`` examples takes."""
        return num_tokens if self.is_packed else longest * count

    def nll_sum(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Sum of nll over the batch's targets in nats, a scalar in fp32."""
        return loss.nll_sum(model, batch) if self.has_plain_head else loss.plain_nll_sum(model, batch)


def choose_batching(
    model: PreTrainedModel,
    examples: Sequence[Example],
    target_kinds: Collection[int],
    *,
    packing: Packing,
    pad_id: int,
    autocast: Autocast,
    emit: Emit,
    is_trained: bool = True,
) -> Batching:
    """Pack where the model can and the config lets it; ``examples`` are a few that the proof is made with.

    Leaves the model in evaluation mode, without gradients; one that is not trained is proved by the loss alone.
    Raises ModelError where packing is ``on`` and cannot be.
    """
    model.eval()  # dropout would make equal computations differ
    padded = loss.pad(examples, target_kinds, pad_id)
    proof = _Proof(model, [loss.pad([one], target_kinds, pad_id) for one in examples], autocast, is_trained=is_trained)
    # The head first: packing is then proved with the loss that the run will use.
    has_plain_head = proof.is_matrix_product(padded) and proof.difference_of(padded, loss.nll_sum) is None
    if not has_plain_head:
        emit(Notice("batching: logits are computed for all tokens, because they are more than a matrix product"))
    # What the config of the model says is only a first look: a model that swallows the segments shows in the proof.
    reason = "training.packing is off" if packing == "off" else why_not_packed(model)
    if reason is None:
        plain = use_packed_attention(model)
        nll_sum = loss.nll_sum if has_plain_head else loss.plain_nll_sum
        reason = proof.difference_of(loss.pack(examples, target_kinds), nll_sum)
        if reason is not None:
            model.set_attn_implementation(plain)
    if reason is not None and packing == "on":
        raise ModelError(f"training.packing is on, but {reason}", hint="--set training.packing=auto")
    attention = _attention(model, autocast, is_packed=reason is None)
    if reason is None:
        how = f"checked against one dialogue at a time (attention: {attention})"
        emit(Notice(f"batching: packed without padding, {how}"))
    else:
        emit(Notice(f"batching: padded, because {reason}"))
    return Batching(reason is None, has_plain_head, pad_id, reason, attention)


def stored_batching(model: PreTrainedModel, info: RunInfo, *, pad_id: int, autocast: Autocast) -> Batching | str:
    """The choice that a run stored, without a proof, or why it cannot be used for this model here.

    The proof holds for the code that it was made with: the type of device, the kernel, torch and transformers.
    Leaves the model in evaluation mode.
    """
    # A second proof could end otherwise, because rounding depends on the weights. At a loss of 5e-4 it did: training
    # took the other loss path, and 28 of 28 tensors differed from those of the run that was never stopped.
    stored, packages = info.execution, installed_packages()
    if model.device.type != torch.device(stored.device).type:
        return f"it was made on {stored.device}, and the model is on {model.device}"
    for name in ("torch", "transformers"):
        if packages[name] != info.packages.get(name):
            return f"it was made with {name} {info.packages.get(name)}, and {packages[name]} is installed"
    if stored.is_packed and (reason := why_not_packed(model)):
        return reason
    attention = _attention(model, autocast, is_packed=stored.is_packed)
    if attention != stored.attention:
        return f"its attention kernel was {stored.attention}, and here it is {attention}"
    model.eval()
    if stored.is_packed:
        use_packed_attention(model)
    return Batching(stored.is_packed, stored.has_plain_head, pad_id, stored.why_padded, attention)


def _attention(model: PreTrainedModel, autocast: Autocast, *, is_packed: bool) -> str:
    if not is_packed:
        return attention_of(model)
    return kernel(model.device, _arithmetic(model, autocast))


def _arithmetic(model: PreTrainedModel, autocast: Autocast) -> torch.dtype:
    with autocast():
        is_autocast = torch.is_autocast_enabled(model.device.type)
        return torch.get_autocast_dtype(model.device.type) if is_autocast else model.dtype


def proof_examples(store: TokenStore, target_kinds: Collection[int], among: int = 64) -> list[Example]:
    """The shortest, the middle and the longest of the first examples that have targets and are not long; at least two.

    One example alone would prove nothing: it has no neighbour to see.
    """
    kinds = sorted(target_kinds)
    trained = [index for index in range(min(among, len(store))) if np.isin(store[index].targets, kinds).any()]
    order = sorted(trained, key=lambda index: int(store.lengths[index])) or [0]
    short = [index for index in order if store.lengths[index] <= _LONGEST_PROOF]
    # Of different lengths, so that a pack needs several calls of attention (`attention._by_length`).
    chosen = sorted({short[0], short[len(short) // 2], short[-1]}) if len(short) > 1 else order[:2]
    return [store[index] for index in (chosen if len(chosen) > 1 else chosen * 2)]


class _Proof:
    """Loss and gradient of a few examples, one at a time by transformers' own code, against any other way."""

    def __init__(self, model: PreTrainedModel, alone: Sequence[Batch], autocast: Autocast, *, is_trained: bool) -> None:
        self._model, self._autocast, self._is_trained = model, autocast, is_trained
        dtype = _arithmetic(model, autocast)
        self._loss_tolerance, self._tolerance = _TOLERANCES.get(dtype, _TOLERANCES[torch.float32])
        self._absolute = _ABSOLUTE * sum(batch.num_targets for batch in alone)
        self._expected = self._gradient(alone, loss.plain_nll_sum)

    def is_matrix_product(self, batch: Batch) -> bool:
        """Whether there is a body and a linear head, and the logits are their product.

        Equal losses do not prove that near a loss of 0, where any large logit of the target gives the same loss.
        """
        model = self._model
        if model.base_model is model or not isinstance(model.get_output_embeddings(), torch.nn.Linear):
            return False
        with self._autocast():
            return loss.head_error(model, batch.to(model.device)) <= self._tolerance

    def difference_of(self, batch: Batch, nll_sum: LossOf) -> str | None:
        """What is not equal when all examples are this one batch; None where everything is."""
        expected_loss, expected = self._expected
        actual_loss, actual = self._gradient([batch], nll_sum)
        # `not … <=` and not `>`: a loss that is NaN is a difference.
        if not abs(actual_loss - expected_loss) <= self._loss_tolerance * expected_loss + self._absolute:
            return f"the loss is {actual_loss:.6g} when packed, but {expected_loss:.6g} for one dialogue at a time"
        if not self._is_trained:
            return None
        # One norm over all parameters: the gradient of a single one may be all rounding, as that of a key's bias is.
        size = torch.stack([gradient.norm() for gradient in expected]).norm()
        error = torch.stack([(a - b).norm() for a, b in zip(actual, expected, strict=True)]).norm()
        if not error <= (self._tolerance + self._absolute / max(expected_loss, 1e-12)) * size:
            return f"the gradient differs by {float(error / size):.2g} of its size from one dialogue at a time"
        return None

    def _gradient(self, batches: Sequence[Batch], nll_sum: LossOf) -> tuple[float, list[Tensor]]:
        parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
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
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.detach()
            for parameter in parameters
        ]
        self._model.zero_grad(set_to_none=True)
        return total, gradients
