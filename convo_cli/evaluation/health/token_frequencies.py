"""The loss of guessing every token by its frequency, which is the first thing a model learns."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from convo_cli.tokens.store import TokenStore

_MAX_TOKENS = 1 << 20
"""Tokens of a store that are counted, in parts that are spread evenly over it."""
_NUM_PARTS = 64


def frequency_loss(
    training: TokenStore, scored: TokenStore, target_kinds: Collection[int], num_ids: int
) -> float | None:
    """Return the mean nll in nats of the scored targets by the frequencies of training targets.

    The count of each id is raised by one. None if one of the stores has no such target.
    """
    known, wanted = (_counts(store, target_kinds, num_ids) for store in (training, scored))
    if not known.sum() or not wanted.sum():
        return None
    nll = np.log(known.sum() + num_ids) - np.log(known + 1)  # (V,)
    return float((wanted * nll).sum() / wanted.sum())


def entropy(store: TokenStore, target_kinds: Collection[int], num_ids: int) -> float | None:
    """Return the mean nll in nats of the targets of a store by their own frequencies.

    Guessing by other frequencies never has a lower loss. None without a target.
    """
    counts = _counts(store, target_kinds, num_ids)
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log(shares)).sum()) if len(shares) else None


def _counts(store: TokenStore, target_kinds: Collection[int], num_ids: int) -> NDArray[np.int64]:
    counts = np.zeros(num_ids, np.int64)
    size = min(_MAX_TOKENS, store.num_tokens)
    for part in range(_NUM_PARTS):
        begin = store.num_tokens * part // _NUM_PARTS
        end = begin + size * (part + 1) // _NUM_PARTS - size * part // _NUM_PARTS
        is_counted = np.isin(store.targets[begin:end], sorted(target_kinds))
        counts += np.bincount(store.input_ids[begin:end][is_counted], minlength=num_ids)
    return counts
