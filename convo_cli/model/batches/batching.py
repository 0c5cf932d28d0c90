"""Batching: how examples become batches for one model, checked against one dialogue at a time.

A pack needs no padding, and the loss at targets needs no logits of other tokens. Both depend on
internals of a model that transformers exposes but does not guarantee. So they are used only if this
model, in this arithmetic, gives the same loss and gradient as for one dialogue at a time. A run
makes this choice once, because the check must allow for rounding, whose size depends on the
weights.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convo_cli.config.schema import Packing
from convo_cli.errors import ModelError
from convo_cli.events import Emit, Notice
from convo_cli.model.batches import loss
from convo_cli.model.batches.attention import (
    attention_of,
    kernel,
    use_packed_attention,
    why_not_packed,
)
from convo_cli.model.batches.equality import Autocast, EqualityProof, arithmetic
from convo_cli.model.batches.loss import Batch
from convo_cli.runs.provenance.run_info import RunInfo, installed_packages
from convo_cli.tokens.store import Example, TokenStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LONGEST_PROOF = 128  # tokens of a dialogue: the proof must take only seconds on a CPU too
# Fixed cost of a forward and backward pass, in tokens. Measured on a CPU with 14 M and 124 M
# parameters: 32 to 256 made no difference.
_PASS_COST = 64


@dataclass(frozen=True)
class Batching:
    """The choice of `choose_batching`: packed or padded batches, and how their loss is computed."""

    is_packed: bool
    has_plain_head: bool
    """True if the logits are just the product of the last hidden states and the embeddings."""
    pad_id: int
    why_padded: str | None = None
    attention: str = "sdpa"
    """The name of the attention kernel."""

    def batch(self, examples: Sequence[Example], target_kinds: Collection[int]) -> Batch:
        """Return the examples as a batch for the model."""
        if self.is_packed:
            return loss.pack(examples, target_kinds)
        return loss.pad(examples, target_kinds, self.pad_id)

    def split(self, lengths: NDArray[np.integer], most: int) -> list[slice]:
        """Cut examples of these ascending lengths into forward passes of at most ``most`` examples.

        Padded passes are also cut where padding to one width would cost more than another pass.
        """
        slices, end = [], len(lengths)
        while end:
            begin = max(0, end - most)
            if not self.is_packed:
                # A step of DailyDialog that is padded to its longest dialogue holds 45 % tokens;
                # with these cuts it holds 91 % and is 1.7 times as fast (6 layers of width 384 on a
                # CPU).
                longest_first = lengths[begin:end][::-1]
                padding = np.cumsum(longest_first[0] - longest_first)  # (n,) for 1, 2, … examples
                begin = end - int(np.searchsorted(padding, _PASS_COST, side="right"))
            slices.append(slice(begin, end))
            end = begin
        return slices[::-1]

    def num_slots(self, num_tokens: int, *, longest: int, count: int) -> int:
        """Return the tokens of a batch of ``count`` examples, including padding."""
        return num_tokens if self.is_packed else longest * count

    def nll(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed nll of the batch's targets in nats, and its terms without gradient.

        The sum is an fp32 scalar; the terms (N,) are in the order of the targets.
        """
        compute = loss.nll if self.has_plain_head else loss.plain_nll
        return compute(model, batch)

    def nll_sum(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the sum that `nll` returns."""
        return self.nll(model, batch)[0]


def batching_for(
    model: PreTrainedModel,
    store: TokenStore,
    target_kinds: Collection[int],
    *,
    info: RunInfo | None,
    packing: Packing,
    pad_id: int,
    autocast: Autocast,
    emit: Emit,
    is_trained: bool = True,
) -> Batching:
    """Return the batching that run.json (``info``) stores; choose one if there is none to use here.

    The other parameters are those of `choose_batching`; its examples come from the store.
    """
    if info is not None:
        stored = stored_batching(model, info, pad_id=pad_id, autocast=autocast)
        if isinstance(stored, Batching):
            return stored
        emit(Notice(f"batching: chosen again, because {stored}"))
    return choose_batching(
        model, proof_examples(store, target_kinds), target_kinds,
        packing=packing, pad_id=pad_id, autocast=autocast, emit=emit, is_trained=is_trained,
    )  # fmt: skip


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
    """Choose packing if model and config allow it; ``examples`` are a few real ones for the proof.

    Leaves the model in evaluation mode, without gradients. A model that is not trained is proved by
    the loss alone. Raises ModelError if packing is ``on`` but impossible.
    """
    model.eval()  # dropout would make the two computations differ
    padded = loss.pad(examples, target_kinds, pad_id)
    alone = [loss.pad([one], target_kinds, pad_id) for one in examples]
    proof = EqualityProof(model, alone, autocast, is_trained=is_trained)
    # The head comes first, so that packing is proved with the loss that the run will use.
    has_plain_head = (
        proof.is_matrix_product(padded) and proof.difference_of(padded, loss.nll_sum) is None
    )
    if not has_plain_head:
        why = f"which needs more memory ({type(model).__name__} allows no other way)"
        emit(Notice(f"loss: computed from the logits of all tokens, {why}"))
    # The model's config gives only a first answer: the proof exposes a model that ignores the
    # segments.
    reason = "training.packing is off" if packing == "off" else why_not_packed(model)
    if reason is None:
        plain = use_packed_attention(model)
        nll_sum = loss.nll_sum if has_plain_head else loss.plain_nll_sum
        reason = proof.difference_of(loss.pack(examples, target_kinds), nll_sum)
        if reason is not None:
            model.set_attn_implementation(plain)
    if reason is not None and packing == "on":
        raise ModelError(
            f"training.packing is on, but this model cannot be packed: {reason}",
            hint="--set training.packing=auto",
        )
    if reason is None:
        same = "loss and gradient" if is_trained else "loss"
        how = f"packed without padding (checked: same {same} as one dialogue at a time)"
    else:
        how = f"padded to the longest one in their batch, because {reason}"
    emit(Notice(f"batching: dialogues are {how}"))
    attention = _attention(model, autocast, is_packed=reason is None)
    return Batching(reason is None, has_plain_head, pad_id, reason, attention)


def stored_batching(
    model: PreTrainedModel, info: RunInfo, *, pad_id: int, autocast: Autocast
) -> Batching | str:
    """Return the stored choice of a run without another proof, or why it cannot be used here.

    A proof holds only for the same type of device, kernel, torch and transformers. Leaves the model
    in evaluation mode.
    """
    # A second proof could end differently, because rounding depends on the weights. At a loss of
    # 5e-4 it did: training took the other loss path, and 28 of 28 tensors differed from those of
    # the uninterrupted run.
    stored, packages = info.execution, installed_packages()
    if model.device.type != torch.device(stored.device).type:
        return f"the run used {stored.device}, and the model is now on {model.device}"
    for name in ("torch", "transformers"):
        if packages[name] != info.packages.get(name):
            return f"the run used {name} {info.packages.get(name)}, and now it is {packages[name]}"
    if stored.is_packed and (reason := why_not_packed(model)):
        return reason
    attention = _attention(model, autocast, is_packed=stored.is_packed)
    if attention != stored.attention:
        return f"the run used the attention kernel {stored.attention}, and now it is {attention}"
    model.eval()
    if stored.is_packed:
        use_packed_attention(model)
    return Batching(stored.is_packed, stored.has_plain_head, pad_id, stored.why_padded, attention)


def _attention(model: PreTrainedModel, autocast: Autocast, *, is_packed: bool) -> str:
    if not is_packed:
        return attention_of(model)
    return kernel(model.device, arithmetic(model, autocast))


def proof_examples(
    store: TokenStore, target_kinds: Collection[int], among: int = 64
) -> list[Example]:
    """Return at least two examples with targets: the shortest, a middle one and the longest.

    They are chosen from ``among`` examples, spread evenly over the store, without those that are
    too long for a proof. One example alone would prove nothing, because it has no neighbour to
    attend to.
    """
    kinds = sorted(target_kinds)
    trained = [
        index
        for index in np.unique(np.linspace(0, len(store) - 1, among).astype(int)).tolist()
        if np.isin(store[index].targets, kinds).any()
    ]
    order = sorted(trained, key=lambda index: int(store.lengths[index])) or [0]
    short = [index for index in order if store.lengths[index] <= _LONGEST_PROOF]
    # Different lengths, so that a pack needs several calls of attention (`attention._by_length`).
    chosen = sorted({short[0], short[len(short) // 2], short[-1]}) if len(short) > 1 else order[:2]
    return [store[index] for index in (chosen if len(chosen) > 1 else chosen * 2)]
