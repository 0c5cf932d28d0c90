"""Which examples a step trains on: a pure function of (seed, step), so a resumed run needs no data position.

Epochs, each a full shuffle of its own, follow each other without a gap; a step is the next stretch of that stream,
either of so many examples or of so many tokens.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from convo_cli.data.store import TokenStore


def step_examples(num_examples: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """The example numbers of a step (counted from 0): exactly ``batch_size`` of them."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs, places = np.divmod(positions, num_examples)
    return np.array(
        [_epoch_order(num_examples, seed, int(epoch))[place] for epoch, place in zip(epochs, places, strict=True)],
        dtype=np.int64,
    )


class TokenBudget:
    """The same by tokens: step s has the examples whose first token is among the s-th ``batch_tokens`` of the stream.

    An example longer than ``batch_tokens`` would leave steps empty, so none may be.
    """

    def __init__(self, store: TokenStore, batch_tokens: int, seed: int) -> None:
        self._lengths, self._total = store.lengths, store.num_tokens
        self._batch_tokens, self._seed = batch_tokens, seed
        self._starts = lru_cache(maxsize=2)(self._epoch_starts)

    def step_examples(self, step: int) -> NDArray[np.int64]:
        """The example numbers of a step (counted from 0)."""
        begin, end = step * self._batch_tokens, (step + 1) * self._batch_tokens
        parts = []
        for epoch in range(begin // self._total, (end - 1) // self._total + 1):
            offset = epoch * self._total
            first, last = np.searchsorted(self._starts(epoch), [begin - offset, end - offset])
            parts.append(_epoch_order(len(self._lengths), self._seed, epoch)[first:last])
        return np.concatenate(parts)

    def _epoch_starts(self, epoch: int) -> NDArray[np.int64]:
        """Where in the epoch's tokens each of its examples begins, in the order of the epoch."""
        lengths = self._lengths[_epoch_order(len(self._lengths), self._seed, epoch)]
        return np.cumsum(lengths) - lengths


@lru_cache(maxsize=2)
def _epoch_order(num_examples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(num_examples)
