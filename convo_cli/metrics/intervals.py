"""Bootstrap intervals of scores: replies are resampled, and their statistics summed.

Shapes: R resampled corpora, N replies, K statistics of a reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from convo_cli.events import SampleReply
from convo_cli.metrics.reply_scores import measure
from convo_cli.metrics.reply_texts import Additive, Array

NUM_RESAMPLES = 1000
_BOUNDS = (2.5, 97.5)  # per cent: a 95 % interval
_MAX_COUNTS = 2**21
"""Most counts of rows in memory at once (16 MiB)."""


def paired_intervals(
    first: Sequence[SampleReply], second: Sequence[SampleReply], *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of the first model's score minus the second's, for each metric.

    Both models answer the same turns, and each resampled corpus has the same turns for both, so the
    difficulty of the turns cancels. ValueError if the turns differ.
    """
    if [_turn(one) for one in first] != [_turn(one) for one in second]:
        raise ValueError("the two models answered different turns")
    ours, theirs = (_resampled(measure(replies), seed) for replies in (first, second))
    return {name: bounds_of(one - theirs[name]) for name, one in ours.items()}


def intervals_of(
    measured: Mapping[str, Additive | float], *, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of each metric that is a function of summed statistics.

    The others (NIST, distinct) have none: a resampled corpus repeats replies, which shifts them.
    Empty for fewer than two replies.
    """
    return {name: bounds_of(scores) for name, scores in _resampled(measured, seed).items()}


def resampled_sums(rows: Array, seed: int = 0) -> Array:
    """Return the sums of the rows (N, K) in resampled corpora of as many rows, (R, K)."""
    generator, num = np.random.default_rng(seed), len(rows)
    sums = np.empty((NUM_RESAMPLES, rows.shape[1]))
    together = max(1, _MAX_COUNTS // num)  # resamples whose counts are in memory, (…, N)
    for begin in range(0, NUM_RESAMPLES, together):
        part = sums[begin : begin + together]
        counts = [
            np.bincount(generator.integers(0, num, num), minlength=num) for _ in range(len(part))
        ]
        part[:] = np.array(counts, np.float64) @ rows
    return sums


def _resampled(measured: Mapping[str, Additive | float], seed: int) -> dict[str, Array]:
    """Return the scores (R,) of each metric with intervals, all from the same resamples."""
    additive = {
        name: one
        for name, one in measured.items()
        if isinstance(one, Additive) and len(one.rows) > 1
    }
    if not additive:
        return {}
    # Several metrics may be functions of the same statistics.
    blocks = {id(one.rows): one.rows for one in additive.values()}
    ends = np.cumsum([rows.shape[1] for rows in blocks.values()])
    sums = resampled_sums(np.concatenate(list(blocks.values()), axis=1), seed)
    sums_of = dict(zip(blocks, np.split(sums, ends[:-1], axis=1), strict=True))
    return {name: one.of_sums(sums_of[id(one.rows)]) for name, one in additive.items()}


def bounds_of(values: Array) -> tuple[float, float]:
    """Return the bounds of the 95 % interval of resampled scores, (R,)."""
    low, high = np.percentile(values, _BOUNDS)
    return float(low), float(high)


def _turn(reply: SampleReply) -> tuple[object, ...]:
    return reply.history, reply.reference, reply.other_references
