"""Replies shared by the processes of a world: each generates some of them, at its own pace."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from convo_cli.errors import OutOfMemoryError, is_out_of_memory
from convo_cli.model.decoding.generator import Reply
from convo_cli.tokens.order import share_of
from convo_cli.world import World

_SECONDS = 0.2  # between two checks for a stop request, of this process or of another one


class EvaluationStoppedError(Exception):
    """A stop was requested during an evaluation; every process of the world raises it."""


class Answer(NamedTuple):
    """The fields of a reply that the processes send each other."""

    text: str
    stopped: bool


class SharedReplies:
    """One set of replies to generate; every process of the world creates it.

    ``show`` receives how many replies are finished in all processes together, and ``is_stopped``
    returns whether this process has a stop request.
    """

    def __init__(
        self,
        world: World | None = None,
        show: Callable[[int], None] = lambda done: None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.world = world or World()
        self._show, self._is_stopped = show, is_stopped
        self._done, self._stops = self.world.tally(), self.world.tally()
        self._num_own = 0
        self._has_asked = False
        self._next_check = 0.0

    def own_items(self, costs: NDArray[np.int64]) -> list[int]:
        """Return the indices of the items of this process; ``costs`` has the cost of each item."""
        return [int(place) for place in share_of(costs, self.world.rank, self.world.size)]

    def count(self, done: int) -> None:
        """Count the replies that this process has finished: ``done`` so far."""
        self._show(self._done.add(done - self._num_own))
        self._num_own = done

    def raise_if_stopped(self) -> None:
        """Raise EvaluationStoppedError if any process has a stop request; called at every token."""
        if time.monotonic() >= self._next_check and self._stop_requests():
            raise EvaluationStoppedError

    def collect(self, generate: Callable[[], Mapping[int, Reply]]) -> dict[int, Answer]:
        """Generate the replies of this process; return those of all processes, by number.

        All processes raise EvaluationStoppedError after a stop request, and OutOfMemoryError if
        memory runs out in any of them.
        """

        def work() -> Mapping[int, Reply]:
            try:
                return generate()
            except EvaluationStoppedError:
                return {}
            except (MemoryError, OSError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise OutOfMemoryError(type(error).__name__) from error

        own = self.world.agreed(work, self._wait)
        # A request may have come after the last check of any process.
        if self.world.any(self._has_asked or self._is_stopped()):
            raise EvaluationStoppedError
        if self.world.size > 1:
            self._show(self._done.add())  # with the replies that came after the last call
        parts = self.world.gather(
            [(number, reply.text, reply.stopped) for number, reply in own.items()]
        )
        found = {number: Answer(text, stopped) for part in parts for number, text, stopped in part}
        return {number: found[number] for number in sorted(found)}

    def _wait(self) -> None:
        """Show the progress of the others, and pass a stop request on to them."""
        self._show(self._done.add())
        self._stop_requests()

    def _stop_requests(self) -> int:
        """Return how many processes have a stop request, including this one."""
        self._next_check = time.monotonic() + _SECONDS
        is_new = not self._has_asked and self._is_stopped()
        self._has_asked |= is_new
        return self._stops.add(int(is_new))
