"""Mixture of files: the stream of examples in which an epoch passes over each file by its weight.

Each file is a stream of passes of its own, each with its own shuffle. With N examples and weight w,
epoch e takes the places floor(e w N) to floor((e + 1) w N) of that stream, so no example is left
out for longer than others. What an epoch takes of all files is shuffled together. With weights of 1
an epoch is one shuffle of all examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from convo_cli.errors import DataError

_OF_A_PASS = 1
"""Last number of a pass's seed: without it, pass 0 of file 7 would have the seed of epoch 7."""

_BLOCK = 1 << 13  # examples summed at once


class Mixture:
    """The stream of the examples of files, which follow each other in a store.

    ``files`` (F,) are their numbers of examples and their weights, read as decimal numbers.
    DataError if an epoch could be empty.
    """

    def __init__(self, files: Sequence[tuple[int, float]], seed: int) -> None:
        self._sizes, self._seed = [size for size, _ in files], seed
        # 32 bits halve the memory: the order of an epoch has a number for each of its examples.
        self._dtype = np.int32 if sum(self._sizes) <= np.iinfo(np.int32).max else np.int64
        self._ends = np.cumsum(self._sizes)
        # Exact: 1.1 passes over 10 examples are 11.
        self._rates = [Fraction(str(weight)) * size for size, weight in files]
        if max(self._rates) < 1:
            raise DataError(
                "data.train: the weights are so small that an epoch may have no example",
                hint="raise a weight",
            )
        self.epoch_size = sum(self._rates, Fraction(0))
        """Mean number of examples of an epoch."""
        self.num_before = lru_cache(maxsize=256)(self._num_before)
        """Returns the number of examples in the stream before an epoch."""
        self.order = lru_cache(maxsize=1)(self._order)
        """Returns the examples of an epoch in the order of the stream."""

    def locate(self, example: int) -> tuple[int, int]:
        """Return the epoch of an example of the stream, and its place in the epoch."""
        size = self.epoch_size  # not divided by: fractions are slow
        epoch = example * size.denominator // size.numerator  # or later: epochs round down
        while self.num_before(epoch + 1) <= example:
            epoch += 1
        return epoch, example - self.num_before(epoch)

    def per_epoch(self, values: NDArray[np.integer]) -> Fraction:
        """Return the mean sum of an epoch of a value (N,) per example."""
        sums = (int(values[self._part(file)].sum()) for file in range(len(self._sizes)))
        rates = zip(self._rates, sums, self._sizes, strict=True)
        return sum((rate * value / size for rate, value, size in rates if size), Fraction(0))

    def most_copies(self, num_examples: int) -> NDArray[np.int64]:
        """Return how often an example of each file (F,) can occur in the stream, at most.

        The bound holds for any ``num_examples`` that follow each other.
        """
        smallest_epoch = sum(rate.numerator // rate.denominator for rate in self._rates)
        epochs = 1 + math.ceil(Fraction(num_examples - 1, smallest_epoch))
        copies = [
            rate // size if rate % size == 0 else 1 + math.ceil(Fraction(math.ceil(rate) - 1, size))
            for rate, size in zip(self._rates, self._sizes, strict=True)
        ]
        return np.array([min(num_examples, epochs * number) for number in copies], np.int64)

    def totals(self, values: NDArray[np.integer], example: int) -> list[int]:
        """Return the sums by file, (F,), of a value (N,) over the stream before an example."""
        epoch, place = self.locate(example)
        in_epoch = np.zeros(len(self._sizes), np.int64)
        for begin in range(0, place, _BLOCK):  # in parts, to bound the memory
            rest = self.order(epoch)[begin : min(place, begin + _BLOCK)]
            np.add.at(in_epoch, np.searchsorted(self._ends, rest, side="right"), values[rest])
        return [
            self._stream_total(file, values, end) + int(in_epoch[file])
            for file, end in enumerate(self._taken(epoch))
        ]

    def _stream_total(self, file: int, values: NDArray[np.integer], end: int) -> int:
        if not end:
            return 0
        passes, rest = divmod(end, self._sizes[file])
        total = passes * int(values[self._part(file)].sum())
        if rest:
            order = self._pass(file, passes)[:rest]
            total += sum(int(values[order[k : k + _BLOCK]].sum()) for k in range(0, rest, _BLOCK))
        return total

    def _num_before(self, epoch: int) -> int:
        return sum(self._taken(epoch))

    def _taken(self, epoch: int) -> list[int]:
        """Return the examples in the stream of each file before an epoch, (F,)."""
        return [epoch * rate.numerator // rate.denominator for rate in self._rates]

    def _order(self, epoch: int) -> NDArray[np.integer]:
        bounds = zip(self._taken(epoch), self._taken(epoch + 1), strict=True)
        order = _joined([self._between(file, *two) for file, two in enumerate(bounds)])
        # The same as `order[random.permutation(len(order))]`, which needs five times the memory.
        np.random.default_rng([self._seed, epoch]).shuffle(order)
        order.setflags(write=False)
        return order

    def _between(self, file: int, begin: int, end: int) -> NDArray[np.integer]:
        """Return the examples at these places of the stream of a file.

        Those of a whole pass come unshuffled, because the epoch is shuffled.
        """
        if begin == end:
            return np.empty(0, self._dtype)
        size, part = self._sizes[file], self._part(file)
        pieces = []
        for number in range(begin // size, (end - 1) // size + 1):
            low, high = max(0, begin - number * size), min(size, end - number * size)
            is_whole = high - low == size
            pieces.append(
                np.arange(part.start, part.stop, dtype=self._dtype)
                if is_whole
                else self._pass(file, number)[low:high]
            )
        return _joined(pieces)

    def _pass(self, file: int, number: int) -> NDArray[np.integer]:
        part = self._part(file)
        order = np.arange(part.start, part.stop, dtype=self._dtype)
        np.random.default_rng([self._seed, file, number, _OF_A_PASS]).shuffle(order)
        return order

    def _part(self, file: int) -> slice:
        end = int(self._ends[file])
        return slice(end - self._sizes[file], end)


def _joined(pieces: list[NDArray[np.integer]]) -> NDArray[np.integer]:
    """Join arrays; a single one is not copied."""
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
