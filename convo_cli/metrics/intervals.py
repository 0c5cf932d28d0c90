"""Intervals of scores by the bootstrap: replies are drawn again, their statistics summed.

Shapes: R resampled corpora, N replies, K statistics of a reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from convo_cli.events import SampleReply
from convo_cli.metrics.reply_scores import measure
from convo_cli.metrics.reply_texts import Additive, Array

NUM_RESAMPLES = 1000
_BOUNDS = (2.5, 97.5)  # per cent: a 95 % interval
_NUM_CACHED = 2  # draws; all metrics of an evaluation share one


def score_intervals(
    replies: Sequence[SampleReply], *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of each metric that is a function of summed statistics.

    The others (NIST, distinct) have none: a resampled corpus repeats replies, which shifts them.
    Fewer than two replies have no intervals.
    """
    return intervals_of(measure(replies), seed=seed)


def paired_intervals(
    first: Sequence[SampleReply], second: Sequence[SampleReply], *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of the first model's score minus the second's, for each metric.

    Both models answer the same turns, and each resampled corpus has the same turns for both, so the
    difficulty of the turns cancels. ValueError if the turns differ.
    """
    if [_turn(one) for one in first] != [_turn(one) for one in second]:
        raise ValueError("the two models answered different turns")
    ours, theirs = measure(first), measure(second)
    intervals = {}
    for name, one in ours.items():
        other = theirs[name]
        if isinstance(one, Additive) and isinstance(other, Additive) and len(one.rows) > 1:
            difference = _resampled(one, seed) - _resampled(other, seed)
            intervals[name] = bounds_of(difference)
    return intervals


def intervals_of(
    measured: Mapping[str, Additive | float], *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of each metric with statistics of two replies or more."""
    return {
        name: bounds_of(_resampled(one, seed))
        for name, one in measured.items()
        if isinstance(one, Additive) and len(one.rows) > 1
    }


def resampled_sums(rows: Array, seed: int = 0) -> Array:
    """Return the sums of the rows (N, K) in resampled corpora of as many rows, (R, K)."""
    return np.asarray(_draws(len(rows), seed) @ rows)


def _resampled(metric: Additive, seed: int) -> Array:
    return metric.of_sums(resampled_sums(metric.rows, seed))  # (R,)


@lru_cache(maxsize=_NUM_CACHED)
def _draws(num: int, seed: int) -> Array:
    """Return how often each of ``num`` replies is in each resampled corpus, (R, N)."""
    generator = np.random.default_rng(seed)
    return np.stack(
        [
            np.bincount(generator.integers(0, num, num), minlength=num).astype(np.float64)
            for _ in range(NUM_RESAMPLES)
        ]
    )


def bounds_of(values: Array) -> tuple[float, float]:
    """Return the bounds of the 95 % interval of resampled scores, (R,)."""
    low, high = np.percentile(values, _BOUNDS)
    return float(low), float(high)


def _turn(reply: SampleReply) -> tuple[object, ...]:
    return reply.history, reply.reference, reply.other_references
