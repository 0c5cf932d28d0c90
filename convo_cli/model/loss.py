"""From examples to the one number that is trained on: the summed negative log-likelihood of the target tokens.

Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from convo_cli.data.store import Example

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORE_INDEX = -100


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples padded on the right to the longest of them."""

    input_ids: Tensor  # (B, T)
    attention_mask: Tensor  # (B, T) 1 for tokens, 0 for padding
    labels: Tensor  # (B, T) the token itself where it is a target, else IGNORE_INDEX
    num_targets: int
    num_tokens: int

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.labels.to(device),
            self.num_targets,
            self.num_tokens,
        )


def collate(examples: Sequence[Example], target_kinds: Iterable[int], pad_id: int) -> Batch:
    """Pad examples into one batch; only tokens of the given target kinds get a label, padding never does."""
    kinds = torch.tensor(sorted(target_kinds), dtype=torch.uint8)
    shape = (len(examples), max(len(example.input_ids) for example in examples))
    input_ids = torch.full(shape, pad_id, dtype=torch.long)  # (B, T)
    attention_mask = torch.zeros(shape, dtype=torch.long)  # (B, T)
    labels = torch.full(shape, IGNORE_INDEX, dtype=torch.long)  # (B, T)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        ids = torch.tensor(example.input_ids, dtype=torch.long)
        input_ids[row, :length] = ids
        attention_mask[row, :length] = 1
        is_target = torch.isin(torch.tensor(example.targets), kinds)
        labels[row, :length] = torch.where(is_target, ids, IGNORE_INDEX)
    num_targets = int((labels != IGNORE_INDEX).sum())
    return Batch(input_ids, attention_mask, labels, num_targets, int(attention_mask.sum()))


def nll_sum(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Sum of -log p(token | tokens before it) in nats over the batch's targets; a scalar in fp32."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits  # (B, T, V)
    return functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),  # (B * (T - 1), V)
        batch.labels[:, 1:].flatten(),  # (B * (T - 1),)
        ignore_index=IGNORE_INDEX,
        reduction="sum",
    )
