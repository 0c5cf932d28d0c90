"""Numbers of a run in progress: smoothed loss, speed and time left, and their short forms for
display.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isfinite

from convo_cli.events import StepDone

Clock = Callable[[], float]
"""Seconds of a clock that never goes back."""

_BLOCKS = "▁▂▃▄▅▆▇█"


class Meter:
    """Smoothed loss and speed, the loss curve, and the time left, from step events and a clock."""

    _HORIZON = 10
    """Steps over which loss and speed are averaged."""
    _MAX_LOSSES = 480

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock()
        self._num_steps = self._num_left = 0
        self._tokens = self._seconds = self._waiting = self._flops = 0.0
        self._first_step_at = self._last_step_at = self._first_step_seconds = 0.0
        self._stride = 1
        self.loss = 0.0
        self.losses: tuple[float, ...] = ()
        """The smoothed loss at evenly spread steps since the start."""

    def start(self) -> None:
        """Count elapsed time from now."""
        self._began = self._clock()

    def add(self, event: StepDone) -> None:
        self._last_step_at = self._clock()
        self._num_left = event.max_steps - event.step
        if self._num_steps == 0:
            self._first_step_at, self._first_step_seconds = self._last_step_at, event.seconds
        self._num_steps += 1
        share = 1 / min(self._num_steps, self._HORIZON)
        self.loss += share * (event.loss - self.loss)
        self._tokens += share * (event.num_tokens - self._tokens)
        self._seconds += share * (event.seconds - self._seconds)
        self._waiting += share * (event.waiting_seconds - self._waiting)
        self._flops += share * (event.flops - self._flops)
        if self._num_steps % self._stride == 0:
            self.losses = (*self.losses, self.loss)
        if len(self.losses) > self._MAX_LOSSES:
            self.losses, self._stride = self.losses[::2], 2 * self._stride

    @property
    def tokens_per_second(self) -> float:
        return self._tokens / self._seconds if self._seconds > 0 else 0.0

    @property
    def flops_per_second(self) -> float:
        return self._flops / self._seconds if self._seconds > 0 else 0.0

    @property
    def share_of_waiting(self) -> float:
        """Return the share of time in which the device waited for the next examples."""
        return self._waiting / self._seconds if self._seconds > 0 else 0.0

    def elapsed(self) -> float:
        return self._clock() - self._began

    def seconds_left(self) -> float:
        """Return steps left times the mean time of a step, with pauses for evaluation, without the
        slow first step.
        """
        if self._num_steps < 2:
            return self._num_left * self._first_step_seconds
        return self._num_left * (self._last_step_at - self._first_step_at) / (self._num_steps - 1)


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw the finite values as at most ``width`` blocks, each the mean of consecutive values."""
    finite = [value for value in values if isfinite(value)]
    width = min(width, len(finite))
    if width < 1:
        return ""
    edges = [i * len(finite) // width for i in range(width + 1)]
    means = [sum(finite[left:right]) / (right - left) for left, right in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)


def short_number(number: float) -> str:
    """Write a number with three digits: 24.8, 1.23k, 12.3M."""
    for unit in ("", "k", "M", "B"):
        if number < 999.5 or not isfinite(number):
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}T"


def duration(seconds: float) -> str:
    """Write a duration as 1:23, 1:02:03 or 2d 3:04:05."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour}:{minute:02d}:{second:02d}"
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"
