"""Batches, and their loss in training and evaluation: the summed nll of the targets.

A batch is a pack (one row, the examples side by side) or a table (a padded row for each example);
both give the same results. The nll is the negative log-likelihood in nats.

Shapes: B rows, T tokens of a row, N targets, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from convo_cli.model.batches.attention import Segments
from convo_cli.model.batches.target_loss import target_nll
from convo_cli.tokens.store import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Batch:
    """Examples as tensors, with their targets."""

    input_ids: Tensor  # (B, T)
    predictors: Tensor  # (N,) index of the token before each target, in the flattened rows
    labels: Tensor  # (N,) the targets themselves
    num_tokens: int
    attention_mask: Tensor | None = None
    """(B, T) of a padded batch: 1 for tokens, 0 for padding."""
    position_ids: Tensor | None = None
    """(1, T) of a pack: counted from 0 for each example."""
    segments: Segments | None = None
    """The examples of a pack."""

    @property
    def num_targets(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each example without padding; (number of examples,)."""
        if self.segments is not None:
            return torch.tensor(self.segments.lengths)
        assert self.attention_mask is not None, "a batch is a pack or is padded"
        return self.attention_mask.sum(dim=1)

    @property
    def num_examples(self) -> int:
        return len(self.input_ids) if self.segments is None else len(self.segments.lengths)

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on a device."""
        moved: dict[str, Any] = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), (Tensor, Segments))
        }
        return replace(self, **moved)


LossOf: TypeAlias = "Callable[[PreTrainedModel, Batch], Tensor]"
"""Computes the summed nll of a batch."""


def pack(examples: Sequence[Example], target_kinds: Collection[int]) -> Batch:
    """Return one row without padding; positions count from 0 in each example.

    Only the given kinds are targets.
    """
    lengths = [len(example.input_ids) for example in examples]
    flat = np.concatenate([example.input_ids for example in examples]).astype(np.int64)  # (T,)
    boundaries = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)  # (N + 1,)
    kinds = np.concatenate([example.targets for example in examples])  # (T,)
    is_target = np.isin(kinds, sorted(target_kinds))
    is_target[boundaries[:-1]] = False  # the first token of an example has no predecessor in it
    targets = np.flatnonzero(is_target)
    positions = np.arange(len(flat)) - np.repeat(boundaries[:-1], lengths)
    return Batch(
        input_ids=torch.from_numpy(flat).unsqueeze(0),
        predictors=torch.from_numpy(targets - 1),
        labels=torch.from_numpy(flat[targets]),
        num_tokens=len(flat),
        position_ids=torch.from_numpy(positions).unsqueeze(0),
        segments=Segments(tuple(lengths), max(lengths), torch.from_numpy(boundaries)),
    )


def pad(examples: Sequence[Example], target_kinds: Collection[int], pad_id: int) -> Batch:
    """Return a row for each example, padded on the right to the longest.

    Only the given kinds are targets, never padding.
    """
    lengths = np.array([len(example.input_ids) for example in examples])
    width = int(lengths.max())
    rows = np.full((len(examples), width), pad_id, np.int64)  # (B, T)
    is_target = np.zeros((len(examples), width), bool)
    for row, (example, length) in enumerate(zip(examples, lengths, strict=True)):
        rows[row, :length] = example.input_ids
        is_target[row, 1:length] = np.isin(example.targets[1:], sorted(target_kinds))
    targets = np.flatnonzero(is_target)
    return Batch(
        input_ids=torch.from_numpy(rows),
        predictors=torch.from_numpy(targets - 1),
        labels=torch.from_numpy(rows.flat[targets]),
        num_tokens=int(lengths.sum()),
        attention_mask=torch.from_numpy((np.arange(width) < lengths[:, None]).astype(np.int64)),
    )


def nll(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the sum of -log p(target | tokens before it) over the targets, and its terms.

    The sum is an fp32 scalar; the terms (N,) are in the order of the targets, without gradient.
    """
    return target_nll(*_hidden_and_head(model, batch), batch.labels)


def plain_nll(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Compute the same as `nll` from the model's logits of all tokens.

    It is for models whose logits are more than the product of hidden states and embeddings.
    """
    log_probabilities = functional.log_softmax(_logits(model, batch), dim=1)  # (N, V)
    total = functional.nll_loss(log_probabilities, batch.labels, reduction="sum")
    each = functional.nll_loss(log_probabilities.detach(), batch.labels, reduction="none")  # (N,)
    return total, each


def nll_sum(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return the sum that `nll` returns."""
    return nll(model, batch)[0]


def plain_nll_sum(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return the sum that `plain_nll` returns."""
    return plain_nll(model, batch)[0]


@torch.no_grad()
def head_error(model: PreTrainedModel, batch: Batch) -> float:
    """Return how far the logits at targets are from hidden states times output embeddings.

    The distance is relative to the logits.
    """
    product = functional.linear(*_hidden_and_head(model, batch)).float()  # (N, V)
    logits = _logits(model, batch)
    return float((logits - product).norm() / logits.norm())


def _hidden_and_head(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the last hidden states before the targets (N, D), and weight and bias of the head."""
    body: Any = model.base_model
    head: Any = model.get_output_embeddings()
    hidden = body(**_inputs(batch), use_cache=False).last_hidden_state  # (B, T, D)
    return hidden.flatten(0, 1)[batch.predictors], head.weight, getattr(head, "bias", None)


def _logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return the model's own logits before the targets; (N, V) in fp32."""
    logits: Tensor = model(**_inputs(batch), use_cache=False).logits  # (B, T, V)
    return logits.flatten(0, 1)[batch.predictors].float()


def _inputs(batch: Batch) -> dict[str, Any]:
    if batch.segments is None:
        return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    # The mask states that nothing is padding. Without it transformers warns, because many models
    # pad with the end token.
    return {
        "input_ids": batch.input_ids,
        "attention_mask": torch.ones_like(batch.input_ids),
        "position_ids": batch.position_ids,
        "segments": batch.segments,
    }
