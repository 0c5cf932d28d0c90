"""The longest micro-batches of a run, which set its peak of memory, and the work of its steps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from convo_cli.evaluation.finished.file_likelihood import MAX_SLOTS
from convo_cli.evaluation.likelihood import length_sorted_rows, target_kinds
from convo_cli.model.batches.loss import Batch
from convo_cli.tokens.order import share_of
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET, TokenStore
from convo_cli.training.run_parts import Parts

_MOST_STEPS = 256
_MOST_EXAMPLES = 20_000
"""The longest micro-batch is searched in so many first steps and examples, which takes 20 ms."""


def batches_of_step(
    parts: Parts, step: int, num_processes: int = 1
) -> Iterator[NDArray[np.integer]]:
    """Yield the examples of each micro-batch of a step that the first process computes."""
    lengths = parts.data.train.lengths
    chosen = parts.order.examples(step)
    chosen = chosen[np.argsort(lengths[chosen], kind="stable")]
    own = chosen[share_of(lengths[chosen], 0, num_processes)]
    most = parts.execution.micro_batch_size or len(chosen)
    for part in parts.batching.split(lengths[own], most):
        yield own[part]


def longest_of_training(parts: Parts, num_processes: int = 1) -> tuple[Batch, bool]:
    """Return the longest micro-batch, and whether it comes after another one of its step."""
    lengths, num_slots = parts.data.train.lengths, parts.batching.num_slots
    longest: NDArray[np.integer] = np.arange(1)
    most, is_later, num_examples = -1, False, 0
    for step in range(min(parts.max_steps, _MOST_STEPS)):
        for number, chosen in enumerate(batches_of_step(parts, step, num_processes)):
            widest = int(lengths[chosen].max())
            slots = num_slots(int(lengths[chosen].sum()), longest=widest, count=len(chosen))
            if slots > most:
                longest, most, is_later = chosen, slots, number > 0
            num_examples += len(chosen)
        if num_examples > _MOST_EXAMPLES:
            break
    return training_batch(parts, longest), is_later


def longest_of_evaluation(parts: Parts) -> Batch | None:
    """Return the longest batch of an evaluation; None without validation data."""
    store = parts.data.validation
    if store is None:
        return None
    rows = max(
        length_sorted_rows(store, parts.batching, max_slots=MAX_SLOTS),
        key=lambda rows: int(store.lengths[rows].sum()),
    )
    return _batch(parts, store, rows, target_kinds(parts.config.dialogue.train_on))


def training_batch(parts: Parts, chosen: NDArray[np.integer]) -> Batch:
    """Return examples of the training data as a batch, with the targets of the first step."""
    dialogue = parts.config.dialogue
    is_all = dialogue.train_on == "all" or dialogue.user_turns_until > 0
    kinds = (ASSISTANT_TARGET, USER_TARGET) if is_all else (ASSISTANT_TARGET,)
    return _batch(parts, parts.data.train, chosen.tolist(), kinds)


def _batch(parts: Parts, store: TokenStore, rows: list[int], kinds: tuple[int, ...]) -> Batch:
    return parts.batching.batch([store[row] for row in rows], kinds)
