"""World of a run: the processes that train one model together.

`World` is one process: its methods return what they are given, and nothing of torch is imported.
`training/distributed` has the form for several processes. Every process calls the same methods in
the same order; rank 0 alone writes files and shows progress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class World:
    """One process; the base of the form for several."""

    rank: int = 0
    """Number of this process in the world, from 0."""
    size: int = 1
    """Number of processes."""
    local_rank: int = 0
    """Number of this process on its machine, from 0."""
    local_size: int = 1
    """Number of processes on this machine."""

    @property
    def is_first(self) -> bool:
        """Return whether this process writes the files and shows the progress of the run."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sum of each value over the processes: in float64, in the order of ranks."""
        return list(values)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        return flag

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
        """Run the block when rank 0 has finished it; its error ends every process."""
        yield

    def first_alone(self, work: Callable[[], T]) -> T | None:
        """Run work in rank 0 while the others wait, however long; its error ends every process.

        Returns None in the others.
        """
        return work()
