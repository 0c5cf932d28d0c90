"""Reporter that keeps plots/loss.png up to date while a run is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from convo_cli.errors import DiskError, first_line
from convo_cli.events import CheckpointSaved, Emit, EvaluationDone, Event, Notice, StepDone
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.plots import plot_losses

_PAUSE = 20.0
"""Pause after a drawing, as a multiple of its duration: plots take at most 5 % of the time."""


class LossPlot:
    """Draw after every checkpoint and evaluation, or at the next step if that is too soon."""

    def __init__(
        self,
        run: RunDirectory,
        name: str,
        emit: Emit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._name, self._emit, self._clock = run, name, emit, clock
        self._is_stale = False
        self._next_at = clock()

    def __call__(self, event: Event) -> None:
        if isinstance(event, (CheckpointSaved, EvaluationDone)):
            self._is_stale = True
        is_safe = isinstance(event, (CheckpointSaved, EvaluationDone, StepDone))
        if self._is_stale and is_safe and self._clock() >= self._next_at:
            self.draw()

    def draw(self) -> None:
        """Draw the plot now; if that fails, emit a warning and draw no more."""
        began = self._clock()
        self._is_stale = False
        self._next_at = float("inf")
        with plotting("loss.png", self._emit):
            plot_losses(self._run.plots / "loss.png", self._run.metrics, run_name=self._name)
            self._next_at = self._clock() + _PAUSE * (self._clock() - began)


@contextmanager
def plotting(file: str, emit: Emit) -> Iterator[None]:
    """Turn a failure to draw a plot into a warning: training continues without the picture."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (matplotlib may raise anything)
        reason = error.message if isinstance(error, DiskError) else first_line(error)
        message = f"plots/{file} was not drawn ({reason}); training is not affected"
        emit(Notice(message, is_warning=True))
