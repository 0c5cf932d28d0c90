"""Likelihood of dialogues under a model: a mean over tokens, independent of the batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import torch

from convo_cli.model.batches.batching import Batching
from convo_cli.model.batches.loss import Batch
from convo_cli.tokens.store import TokenStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def length_sorted_batches(
    store: TokenStore, target_kinds: Collection[int], batching: Batching, *, max_slots: int
) -> Iterator[Batch]:
    """Yield all examples once, sorted by length, in batches of at most ``max_slots`` tokens.

    Padding counts as tokens. A longer example is a batch of its own.
    """
    rows: list[int] = []
    num_tokens = 0
    for index in np.argsort(store.lengths, kind="stable").tolist():
        length = int(store.lengths[index])
        if (
            rows
            and batching.num_slots(num_tokens + length, longest=length, count=len(rows) + 1)
            > max_slots
        ):
            yield batching.batch([store[row] for row in rows], target_kinds)
            rows, num_tokens = [], 0
        rows.append(index)
        num_tokens += length
    if rows:
        yield batching.batch([store[row] for row in rows], target_kinds)


@torch.inference_mode()
def mean_nll(
    model: PreTrainedModel,
    batching: Batching,
    batches: Iterator[Batch],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[None]],
    on_batch: Callable[[int], None] = lambda num_examples: None,
) -> tuple[float, int]:
    """Return the mean nll of all targets in nats, and their number.

    The model is left in evaluation mode.
    """
    model.eval()
    total, num_targets = 0.0, 0
    for batch in batches:
        with autocast():
            total += float(batching.nll_sum(model, batch.to(device)))
        num_targets += batch.num_targets
        on_batch(batch.num_examples)
    return total / max(1, num_targets), num_targets
