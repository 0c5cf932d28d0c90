"""Likelihood of dialogues under a model: a mean over tokens, independent of the batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from convo_cli.config.schema import TrainOn
from convo_cli.errors import is_out_of_memory
from convo_cli.model.batches.batching import Batching
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET, Example, TokenStore
from convo_cli.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def target_kinds(train_on: TrainOn) -> tuple[int, ...]:
    """Return the kinds of targets that are scored."""
    return (ASSISTANT_TARGET, USER_TARGET) if train_on == "all" else (ASSISTANT_TARGET,)


def length_sorted_rows(
    store: TokenStore, batching: Batching, *, max_slots: int
) -> Iterator[list[int]]:
    """Yield the indices of all examples once, by length, in batches of ``max_slots`` tokens.

    Padding counts as tokens. A longer example is a batch of its own.
    """
    rows: list[int] = []
    num_tokens = 0
    for index in map(int, np.argsort(store.lengths, kind="stable")):  # a list needs 40 bytes each
        length = int(store.lengths[index])
        if (
            rows
            and batching.num_slots(num_tokens + length, longest=length, count=len(rows) + 1)
            > max_slots
        ):
            yield rows
            rows, num_tokens = [], 0
        rows.append(index)
        num_tokens += length
    if rows:
        yield rows


@dataclass(frozen=True)
class GroupedNll:
    """Summed nll in nats and number of targets of each group."""

    nll: NDArray[np.float64]  # (G,)
    counts: NDArray[np.int64]  # (G,)

    def mean(
        self, groups: Sequence[int] | NDArray[np.integer] | slice = slice(None)
    ) -> float | None:
        """Return the mean nll of the targets of some groups (default: all); None without one."""
        count = int(self.counts[groups].sum())
        return float(self.nll[groups].sum()) / count if count else None


GroupsOf: TypeAlias = Callable[[int, Example], NDArray[np.integer]]
"""Returns the group of each token of an example, (T,), given its index in the store."""


@torch.inference_mode()
def nll_by_groupings(
    model: PreTrainedModel,
    batching: Batching,
    store: TokenStore,
    target_kinds: Collection[int],
    groupings: Sequence[tuple[GroupsOf, int]],
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[None]],
    on_batch: Callable[[int], None] = lambda num_examples: None,
    *,
    max_slots: int,
    world: World | None = None,
) -> list[GroupedNll]:
    """Sum the nll of all targets by group, each target once, in one pass over the store.

    Each grouping comes with its number of groups, and all are summed in the same pass. The model is
    left in evaluation mode. A batch that does not fit in memory is split into halves. The processes
    of a world take turns at the batches, and ``on_batch`` counts those of a whole round. Their sums
    are added in the order of ranks.
    """
    world = world or World()
    model.eval()
    kinds = sorted(target_kinds)
    sums = [GroupedNll(np.zeros(num), np.zeros(num, np.int64)) for _, num in groupings]

    most = max_slots  # tokens of a batch; fewer once memory has run out

    def nll_of(examples: Sequence[Example]) -> NDArray[np.float64]:
        nonlocal most
        num_tokens = sum(len(example.input_ids) for example in examples)
        if len(examples) == 1 or num_tokens <= most:
            try:
                batch = batching.batch(examples, target_kinds)
                with autocast():
                    _, each = batching.nll(model, batch.to(device))  # (N,)
                return each.double().cpu().numpy()
            except (MemoryError, OSError, RuntimeError) as error:
                if len(examples) == 1 or not is_out_of_memory(error):
                    raise
            most = num_tokens // 2
        half = len(examples) // 2
        return np.concatenate([nll_of(examples[:half]), nll_of(examples[half:])])

    def add(rows: Sequence[int]) -> None:
        examples = [store[row] for row in rows]
        nll = nll_of(examples)
        # The order of the targets in a batch: by example, then by position.
        chosen = [np.isin(example.targets[1:], kinds) for example in examples]
        for (groups_of, _), grouped in zip(groupings, sums, strict=True):
            groups = np.concatenate(
                [
                    groups_of(row, example)[1:][mask]
                    for row, example, mask in zip(rows, examples, chosen, strict=True)
                ]
            )  # (N,)
            # Only the groups of the batch, because a grouping by dialogue has very many.
            found, places = np.unique(groups, return_inverse=True)
            grouped.nll[found] += np.bincount(places, nll)
            grouped.counts[found] += np.bincount(places)

    batches = length_sorted_rows(store, batching, max_slots=max_slots)
    while taken := list(islice(batches, world.size)):
        if world.rank < len(taken):
            add(taken[world.rank])
        on_batch(sum(map(len, taken)))
    if world.size > 1:
        world.meet()  # without a time limit, unlike the sums
        for grouped in sums:
            grouped.nll[:] = world.sum(grouped.nll.tolist())
            grouped.counts[:] = world.sum(grouped.counts.tolist())
    return sums
