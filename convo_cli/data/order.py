"""Which examples a step trains on: a pure function of (seed, step), so a resumed run needs no data position."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def step_examples(num_examples: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """The example numbers of a step (counted from 0), each epoch a full shuffle of its own.

    Epochs follow each other without a gap, so every step has exactly ``batch_size`` examples and none is left out.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs, places = np.divmod(positions, num_examples)
    return np.array(
        [_epoch_order(num_examples, seed, int(epoch))[place] for epoch, place in zip(epochs, places, strict=True)],
        dtype=np.int64,
    )


@lru_cache(maxsize=2)
def _epoch_order(num_examples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(num_examples)
