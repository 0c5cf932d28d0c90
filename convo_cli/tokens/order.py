"""Order of examples: the examples of a step are a pure function of (seed, phases, step).

Epochs, each with its own shuffle (`tokens/mixture`), follow each other without a gap as one stream
of examples. A step trains on the next part of the stream: a number of examples, or those that begin
within a number of tokens. If a run resumes with another batch size, a new phase begins with the
next example, so that none is skipped or repeated.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from convo_cli.config.schema import TrainingConfig
from convo_cli.tokens.mixture import Mixture
from convo_cli.tokens.phase import Phase

_BLOCK = 1 << 10
"""Examples of a block. The first token of each block is stored; that of an example is a sum."""


class Order:
    """The stream of N examples with ``lengths`` (N,) in tokens, and the start of each step in it.

    No example may be longer than ``batch_tokens``, because it would leave steps empty.
    ``files`` are the number of examples and the weight of each file, in the order of the examples;
    by default, all are of one file.
    """

    def __init__(
        self,
        lengths: NDArray[np.integer],
        seed: int,
        phases: Sequence[Phase],
        files: Sequence[tuple[int, float]] = (),
    ) -> None:
        self.phases = tuple(phases)
        self._lengths, self._seed = lengths, seed
        self._files = files or ((len(lengths), 1),)
        self._mixture = Mixture(self._files, seed)
        self._num_tokens = int(lengths.sum())
        self._epoch_tokens = self._mixture.per_epoch(lengths)
        self._block_starts = lru_cache(maxsize=2)(self._starts_of_blocks)
        self._tokens_before = lru_cache(maxsize=256)(self._tokens_before_epoch)
        # Of the first example of a phase, which may be many epochs ago.
        self._first_token = lru_cache(maxsize=None)(self._token_of)

    def resumed(self, step: int, training: TrainingConfig) -> Order:
        """Return the same order up to ``step``, continued with the batch settings of the config."""
        last = self.phases[-1]
        phase = Phase.of(training, first_step=step, first_example=self.num_before(step))
        if (last.batch, last.unit) == (phase.batch, phase.unit):
            return self
        earlier = [phase for phase in self.phases if phase.first_step < step]
        return Order(self._lengths, self._seed, (*earlier, phase), self._files)

    def examples(self, step: int) -> NDArray[np.int64]:
        """Return the example indices of a step (counted from 0), in the order of the stream."""
        begin, end = self.num_before(step), self.num_before(step + 1)
        epochs = range(self._mixture.locate(begin)[0], self._mixture.locate(end - 1)[0] + 1)
        parts = []
        for epoch in epochs:
            first = self._mixture.num_before(epoch)
            parts.append(self._mixture.order(epoch)[max(0, begin - first) : end - first])
        return np.concatenate(parts, dtype=np.int64)

    def num_before(self, step: int) -> int:
        """Return the number of examples in the stream before a step."""
        begun = (phase for phase in reversed(self.phases) if phase.first_step <= step)
        phase = next(begun, self.phases[0])
        size = (step - phase.first_step) * phase.batch
        if phase.unit == "examples":
            return phase.first_example + size
        return self._example_at(self._first_token(phase.first_example) + size)

    def most_copies(self, num_examples: int) -> NDArray[np.int64]:
        """Return how often each example (N,) can occur in ``num_examples`` in a row, at most."""
        sizes = [size for size, _ in self._files]
        return np.repeat(self._mixture.most_copies(num_examples), sizes)

    def total(self, values: NDArray[np.integer], step: int) -> int:
        """Return the sum of a value (N,) per example over all examples before a step."""
        return sum(self.totals(values, step))

    def totals(self, values: NDArray[np.integer], step: int) -> list[int]:
        """Return the sums of `total` by file, (F,)."""
        return self._mixture.totals(values, self.num_before(step))

    def epoch(self, step: int) -> float:
        """Return the number of epochs finished before a step."""
        epoch, place = self._mixture.locate(self.num_before(step))
        size = self._epoch_size(epoch)
        return (epoch * size + place) / size

    def ends_epoch(self, step: int) -> bool:
        """Return whether the last of ``step`` steps completes an epoch."""
        ends = (self.num_before(step), self.num_before(step - 1)) if step else (0, 0)
        return self._mixture.locate(ends[0])[0] > self._mixture.locate(ends[1])[0]

    @property
    def steps_per_epoch(self) -> float:
        """Return the number of steps of an epoch in the last phase."""
        phase = self.phases[-1]
        size = self._mixture.epoch_size if phase.unit == "examples" else self._epoch_tokens
        return float(size / phase.batch)

    def num_steps(self, epochs: float) -> int:
        """Return the length of a run in steps, at least 1; the last phase has the rest of it."""
        phase = self.phases[-1]
        # Exact: 1.1 epochs of 10 examples are 11.
        whole, part = divmod(Fraction(str(epochs)), 1)
        last = self._mixture.num_before(whole) + math.ceil(part * self._epoch_size(whole)) - 1
        begin, end = phase.first_example, last
        if phase.unit == "tokens":
            begin, end = self._token_of(begin), self._token_of(end)
        return max(1, phase.first_step + max(0, (end - begin) // phase.batch + 1))

    def _epoch_size(self, epoch: int) -> int:
        return self._mixture.num_before(epoch + 1) - self._mixture.num_before(epoch)

    def _token_of(self, example: int) -> int:
        """Return the number of tokens in the stream before one of its examples."""
        epoch, place = self._mixture.locate(example)
        block = place // _BLOCK
        before = self._tokens_before(epoch)
        if place:
            before += int(self._block_starts(epoch)[block])
            before += int(self._epoch_lengths(epoch, block)[: place % _BLOCK].sum())
        return before

    def _example_at(self, token: int) -> int:
        """Return the first example of the stream with at least ``token`` tokens before it."""
        # The tokens before an epoch are those of as many mean epochs, give or take one pass.
        size = self._epoch_tokens
        low = max(0, (token - self._num_tokens) * size.denominator // size.numerator)
        high = (token + self._num_tokens) * size.denominator // size.numerator + 2
        epoch = low - 1 + bisect_right(range(low, high), token, key=self._tokens_before)
        rest = token - self._tokens_before(epoch)
        starts = self._block_starts(epoch)
        block = max(0, int(np.searchsorted(starts, rest)) - 1)
        ends = starts[block] + np.cumsum(self._epoch_lengths(epoch, block))
        place = 0 if rest == 0 else int(np.searchsorted(ends, rest)) + 1
        return self._mixture.num_before(epoch) + block * _BLOCK + place

    def _tokens_before_epoch(self, epoch: int) -> int:
        return sum(self._mixture.totals(self._lengths, self._mixture.num_before(epoch)))

    def _epoch_lengths(self, epoch: int, block: int) -> NDArray[np.int64]:
        """Return the lengths of a block of examples of the epoch, in its order."""
        examples = self._mixture.order(epoch)[block * _BLOCK : (block + 1) * _BLOCK]
        return np.asarray(self._lengths[examples], np.int64)

    def _starts_of_blocks(self, epoch: int) -> NDArray[np.int64]:
        """Return the token at which each block of examples of the epoch begins."""
        num_blocks = -(-self._epoch_size(epoch) // _BLOCK)
        sizes = [int(self._epoch_lengths(epoch, block).sum()) for block in range(num_blocks)]
        return np.cumsum([0, *sizes])[:-1]


def share_of(lengths: NDArray[np.integer], rank: int, size: int) -> NDArray[np.int64]:
    """Return the places of a rank's examples, ascending, of those of a step with ``lengths`` (n,).

    The longest example goes to the rank with the fewest tokens so far, and so on. So the tokens of
    two ranks differ by at most the longest example, and every process knows every share.
    """
    if size == 1:
        return np.arange(len(lengths))
    loads = [(0, other) for other in range(size)]
    own = []
    for place in np.argsort(-lengths, kind="stable").tolist():
        tokens, lightest = loads[0]
        heapq.heapreplace(loads, (tokens + int(lengths[place]), lightest))
        if lightest == rank:
            own.append(place)
    return np.array(sorted(own), np.int64)
