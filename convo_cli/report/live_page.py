"""Reporter that keeps report.html up to date while a run is trained."""

from __future__ import annotations

import time
from collections.abc import Callable

from convo_cli.errors import ConvoError, first_line
from convo_cli.events import Emit, EvaluationDone, Event, Notice, RunFinished, StepDone
from convo_cli.report.page import write_run_page
from convo_cli.report.reading.gathering import gather
from convo_cli.runs.directory import RunDirectory

_PAUSE = 20.0
"""Pause after a page, as a multiple of its duration: pages take at most 5 % of the time."""


class LivePage:
    """Write the page after every evaluation, or at a later step if the last page is too recent.

    It must come after the reporter that writes the log, because it reads the log. If the page
    cannot be written, it emits a warning, and training continues.
    """

    def __init__(
        self, run: RunDirectory, emit: Emit, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run, self._emit, self._clock = run, emit, clock
        self._is_stale = False
        self._next_at = clock()

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            self.write(is_running=False)
            return
        self._is_stale |= isinstance(event, EvaluationDone)
        is_safe = isinstance(event, (EvaluationDone, StepDone))
        if self._is_stale and is_safe and self._clock() >= self._next_at:
            self.write(is_running=True)

    def write(self, *, is_running: bool) -> None:
        """Write the page now; on failure, emit a warning and write no more pages until the end."""
        began = self._clock()
        self._is_stale = False
        self._next_at = float("inf")
        try:
            write_run_page(gather(self._run, is_running=is_running))
        except Exception as error:  # noqa: BLE001  (a failed page must not end the run)
            reason = error.message if isinstance(error, ConvoError) else first_line(error)
            message = (
                f"{self._run.report.name} was not written ({reason}); training is not affected"
            )
            self._emit(Notice(message, is_warning=True))
        else:
            self._next_at = self._clock() + _PAUSE * (self._clock() - began)
