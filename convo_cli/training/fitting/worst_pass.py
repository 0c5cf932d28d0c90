"""Worst passes of a run: for each micro-batch size, the pass that needs the most memory.

Which examples share a pass depends on their order, which changes with the seed and the length of
the run. So the worst pass is that of any order: the longest examples of the training data.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from convo_cli.model.batches.batching import Batching
from convo_cli.tokens.order import Order
from convo_cli.tokens.phase import Phase


class WorstPasses:
    """The worst passes of training examples with ``lengths`` (N,) in tokens, by micro-batch size.

    ``num_processes`` share each step. The batch settings are those of the last phase of the order.
    """

    def __init__(
        self, lengths: NDArray[np.integer], order: Order, batching: Batching, num_processes: int = 1
    ) -> None:
        phase, self._batching = order.phases[-1], batching
        self.largest = _most_in_step(phase, int(lengths.min()))
        """The most examples that a step can have."""
        ascending = np.argsort(lengths, kind="stable")
        # A step can have an example twice: at the end of an epoch and in the next one.
        copies = order.most_copies(self.largest)
        if batching.is_packed:  # else shorter ones may need more, because padding cuts passes
            ascending = ascending[-self.largest :]
        self._examples = np.repeat(ascending, copies[ascending])[::-1]  # (K,), the longest first
        self._lengths = lengths[self._examples]
        self._rest = self._tokens_besides_longest(phase, num_processes)
        self._num_processes = num_processes

    def sizes(self) -> list[int]:
        """Return the micro-batch sizes to choose from, the largest first.

        The first is that of whole steps. Each of the others cuts the examples of a process into
        twice as many passes as the one before, of about the same size. So passes are even, and a
        little more or less free memory rarely changes the choice.
        """
        sizes, size = [self.largest], -(-self.largest // self._num_processes)
        while size > 1:
            sizes.append(size)
            size = -(-size // 2)
        return list(dict.fromkeys([*sizes, 1]))

    def passes(self, size: int) -> list[NDArray[np.int64]]:
        """Return the examples of the passes of at most ``size`` that need most, the longest last.

        They are the pass with the most tokens, and that of the widest rows if it is another one: an
        attention kernel may need the square of a width.
        """
        places = [self._place(size)]
        if not self._batching.is_packed and places[0].start > 0:
            places.append(next(self._padded(size)))
        return [self._examples[place][::-1] for place in places]

    def num_slots(self, size: int) -> int:
        """Return the tokens of the pass with the most, including padding."""
        lengths = self._lengths[self._place(size)]
        return self._slots(lengths)

    def _place(self, size: int) -> slice:
        if self._batching.is_packed:
            return slice(0, self._count(0, size))
        return max(self._padded(size), key=lambda place: self._slots(self._lengths[place]))

    def _padded(self, size: int) -> Iterator[slice]:
        """Yield the padded passes of each longest example; padding cuts some before ``size``."""
        most = 0
        for begin in np.unique(-self._lengths, return_index=True)[1].tolist():
            longest = int(self._lengths[begin])
            if longest * size <= most:  # as with each shorter one
                return
            end = begin + self._count(begin, size)
            last = self._batching.split(self._lengths[begin:end][::-1], size)[-1]
            place = slice(begin, begin + last.stop - last.start)
            most = max(most, self._slots(self._lengths[place]))
            yield place

    def _count(self, begin: int, size: int) -> int:
        """Return how many examples from ``begin`` on can be in one pass."""
        rest = np.cumsum(self._lengths[begin + 1 : begin + size])
        if self._rest is None:
            return 1 + len(rest)
        return 1 + int(np.searchsorted(rest, self._rest, side="right"))

    def _slots(self, lengths: NDArray[np.integer]) -> int:
        return self._batching.num_slots(
            int(lengths.sum()), longest=int(lengths[0]), count=len(lengths)
        )

    def _tokens_besides_longest(self, phase: Phase, num_processes: int) -> int | None:
        """Return the most tokens of a process's examples besides the longest; None: no limit."""
        of_step = int(self._lengths[: self.largest].sum())
        if phase.unit == "tokens":  # all examples of a step begin within its tokens
            of_step = min(of_step, phase.batch - 1 + int(self._lengths[0]))
        if num_processes > 1:  # `share_of`: a share exceeds the mean by less than one example
            return of_step // num_processes
        return phase.batch - 1 if phase.unit == "tokens" else None


def _most_in_step(phase: Phase, shortest: int) -> int:
    return phase.batch if phase.unit == "examples" else 1 + (phase.batch - 1) // shortest
