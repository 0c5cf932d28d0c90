"""World of a command: the processes that train or evaluate one model together.

`World` is a single process: its methods return their arguments, and nothing of torch is imported.
`training/distributed/process_group` is the subclass for several processes. Every process calls the
same methods in the same order; rank 0 alone writes files and shows progress.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Seat(NamedTuple):
    """Rank of this process and number of processes, from the environment that a launcher sets.

    The ``local`` values count only the processes on this machine.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int


def seat_in(environment: Mapping[str, str] = os.environ) -> Seat | None:
    """Return the seat of this process; None without a launcher, or if the values disagree."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    values = [environment.get(name, "") for name in names]
    if not all(value.isdecimal() for value in values):
        return None
    seat = Seat(*map(int, values))
    is_possible = seat.rank < seat.size and seat.local_rank < seat.local_size <= seat.size
    return seat if is_possible else None


def is_first_process() -> bool:
    """Return whether this process is rank 0, or the only one: it alone prints."""
    seat = seat_in()
    return seat is None or seat.rank == 0


class Tally:
    """A counter that every process adds to at its own pace; here, that of a single process."""

    def __init__(self) -> None:
        self._sum = 0

    def add(self, amount: int = 0) -> int:
        """Add to the counter; return the sum over all processes so far, without waiting."""
        self._sum += amount
        return self._sum


class World:
    """A single process, and the base class for several."""

    rank: int = 0
    """Number of this process in the world, from 0."""
    size: int = 1
    """Number of processes."""
    local_rank: int = 0
    """Number of this process on its machine, from 0."""

    @property
    def is_first(self) -> bool:
        """Return whether this process writes the files and shows the progress of the run."""
        return self.rank == 0

    def name(self, rank: int) -> str:
        """Return the name of a process for messages, with its host."""
        return f"rank {rank}"

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sum of each value over the processes, in float64 and in the order of ranks."""
        return list(values)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        return bool(self.sum([float(flag)])[0])

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes in the order of ranks; they must be JSON."""
        return [value]

    def sum_gradients(self, parameters: Iterable[Any]) -> None:
        """Replace the gradient of each parameter by its sum over the processes.

        A gradient stays None if no process has one.
        """

    def share_weights(self, tensors: Iterable[Any]) -> None:
        """Replace tensors by those of rank 0."""

    @contextmanager
    def after_first(self) -> Iterator[None]:
        """Run the block in rank 0 first, then in the others; they wait without a time limit."""
        yield

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Turn a lost connection inside the block into the error of the process that failed."""
        yield

    def first_alone(self, work: Callable[[], T]) -> T | None:
        """Run work in rank 0 alone; the others wait without a time limit, and return None.

        An error of the work ends every process.
        """
        return work()

    def tally(self) -> Tally:
        """Return a counter that the processes share while they work at different paces."""
        return Tally()

    def meet(self, on_wait: Callable[[], None] = lambda: None) -> None:
        """Wait for all processes without a time limit; call ``on_wait`` during the wait."""

    def agreed(self, work: Callable[[], T], on_wait: Callable[[], None] = lambda: None) -> T:
        """Run work that needs no other process, then `meet`.

        If it raises a ConvoError in some processes, all processes raise the error of the lowest
        of these ranks, so that all continue in the same way.
        """
        return work()
