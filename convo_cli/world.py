"""World of a run: the processes that train one model together.

`World` is one process: its methods return what they are given, and nothing of torch is imported.
`training/distributed/process_group` has the form for several processes. Every process calls the
same methods in the same order; rank 0 alone writes files and shows progress.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Seat(NamedTuple):
    """The place of this process in its world, as torchrun and `convo` write it to the environment.

    ``local`` values count the processes on this machine.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int


def seat_in(environment: Mapping[str, str] = os.environ) -> Seat | None:
    """Return the place of this process; None if no launcher started it, or if it is impossible."""
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
    """A number to which every process adds in its own time; the form for one process."""

    def __init__(self) -> None:
        self._sum = 0

    def add(self, amount: int = 0) -> int:
        """Add to the number, and return the sum over all processes so far, without waiting."""
        self._sum += amount
        return self._sum


class World:
    """One process; the base of the form for several."""

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
        """Return a process in words, with its host."""
        return f"rank {rank}"

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sum of each value over the processes: in float64, in the order of ranks."""
        return list(values)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        return bool(self.sum([float(flag)])[0])

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes in the order of ranks; they must be JSON."""
        return [value]

    def sum_gradients(self, parameters: Iterable[Any]) -> None:
        """Replace the gradient of each parameter by its sum over the processes.

        It stays None if no process has one.
        """

    def share_weights(self, tensors: Iterable[Any]) -> None:
        """Replace tensors by those of rank 0."""

    @contextmanager
    def after_first(self) -> Iterator[None]:
        """Run the block in rank 0, and then in the others, which wait however long it takes."""
        yield

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Turn a lost connection inside the block into the error of the process that failed."""
        yield

    def first_alone(self, work: Callable[[], T]) -> T | None:
        """Run work in rank 0 while the others wait, however long it takes; they return None.

        Its error ends every process.
        """
        return work()

    def tally(self) -> Tally:
        """Return a number that the processes share while they work at different paces."""
        return Tally()

    def meet(self, on_wait: Callable[[], None] = lambda: None) -> None:
        """Wait until every process is here, however long it takes; call ``on_wait`` meanwhile."""

    def agreed(self, work: Callable[[], T], on_wait: Callable[[], None] = lambda: None) -> T:
        """Run work that needs no other process, and meet.

        If it fails with an error of convo in some process, the error of the first one is raised in
        all of them, so that all continue alike.
        """
        return work()
