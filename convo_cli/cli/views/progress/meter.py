"""Numbers of a run in progress: smoothed loss, speed, best scores, and the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isfinite

from convo_cli.cli.views.progress.files_line import names_of
from convo_cli.events import BestScore, EvaluationDone, RunStarted, StepDone

Clock = Callable[[], float]
"""Seconds of a clock that never goes back."""

_BLOCKS = "▁▂▃▄▅▆▇█"


class Meter:
    """Means of the last steps, the loss curve, the best scores and the time left, from events."""

    _HORIZON = 10
    """Steps over which loss and speed are averaged."""
    _MAX_LOSSES = 480

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = self._last_event_at = clock()
        self._step = self._max_steps = self._num_steps = 0
        self._tokens = self._seconds = self._waiting = self._flops = 0.0
        self._first_step_at = self._last_step_at = self._first_step_seconds = 0.0
        self._steps_per_evaluation: float | None = None
        self._last_evaluated = -1
        self._num_evaluations = 0
        self._paused = self._paused_at_last_step = 0.0
        self.metric = ""
        """The metric by which the run chooses its best checkpoint."""
        self._stride = 1
        self.evaluation_seconds = 0.0
        """Time spent on evaluations."""
        self.loss = 0.0
        self.training_files: tuple[str, ...] = ()
        self.validation_files: tuple[str, ...] = ()
        """Names of the files in the order of their losses; empty for a single one."""
        self._by_file: tuple[tuple[float, float], ...] = ()
        self.losses: tuple[float, ...] = ()
        """The smoothed loss at evenly spread steps since the start."""
        self.best: tuple[BestScore, ...] = ()
        """The best loss and the best metric so far, if there are any."""

    def start(self, event: RunStarted) -> None:
        """Count elapsed time from now."""
        self._began = self._last_event_at = self._clock()
        self._step, self._max_steps = event.first_step - 1, event.max_steps
        self._steps_per_evaluation = event.steps_per_evaluation
        self.metric, self.best = event.metric, event.best
        self.training_files = names_of([str(file["path"]) for file in event.files])
        self.validation_files = names_of(event.validation_files)

    def add(self, event: StepDone) -> None:
        self._last_step_at = self._last_event_at = self._clock()
        self._paused_at_last_step = self._paused
        self._step, self._max_steps = event.step, event.max_steps
        if self._num_steps == 0:
            self._first_step_at, self._first_step_seconds = self._last_step_at, event.seconds
        self._num_steps += 1
        share = 1 / min(self._num_steps, self._HORIZON)
        self.loss += share * (event.loss - self.loss)
        self._tokens += share * (event.num_tokens - self._tokens)
        self._seconds += share * (event.seconds - self._seconds)
        self._waiting += share * (event.waiting_seconds - self._waiting)
        self._flops += share * (event.flops - self._flops)
        parts = zip(event.loss_by_file, event.num_targets_by_file, strict=True)
        now = [((loss or 0.0) * num, float(num)) for loss, num in parts]
        before = self._by_file or ((0.0, 0.0),) * len(now)
        self._by_file = tuple(
            (nll + share * (new_nll - nll), num + share * (new_num - num))
            for (nll, num), (new_nll, new_num) in zip(before, now, strict=True)
        )
        if self._num_steps % self._stride == 0:
            self.losses = (*self.losses, self.loss)
        if len(self.losses) > self._MAX_LOSSES:
            self.losses, self._stride = self.losses[::2], 2 * self._stride

    def add_evaluation(self, event: EvaluationDone) -> None:
        self._last_event_at = self._clock()
        self._last_evaluated = event.step
        self._num_evaluations += 1
        self.evaluation_seconds += event.seconds
        if self._num_steps:
            self._paused += event.seconds
        scores = {"loss": ("loss", event.loss)}
        if self.metric in event.metrics:
            scores["metric"] = (self.metric, event.metrics[self.metric])
        new = {kind: BestScore(*scores[kind], event.step) for kind in event.best if kind in scores}
        old = {"loss" if best.name == "loss" else "metric": best for best in self.best}
        self.best = tuple({**old, **new}.values())

    @property
    def loss_by_file(self) -> tuple[float | None, ...]:
        """Return the smoothed loss of each training file; None before its first target."""
        return tuple(nll / num if num else None for nll, num in self._by_file)

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

    @property
    def step_seconds(self) -> float:
        """Return the mean time of a step with saving, without evaluations and the slow first step.

        0 before the first step.
        """
        if self._num_steps < 2:
            return self._first_step_seconds
        running = self._last_step_at - self._first_step_at - self._paused_at_last_step
        return max(0.0, running / (self._num_steps - 1))

    @property
    def num_evaluations_left(self) -> int:
        """Return the number of evaluations until the last step, which always has one."""
        if not (every := self._steps_per_evaluation):
            return 0
        after = max(self._last_evaluated, self._step - 1)
        if after >= self._max_steps:
            return 0
        in_between = int((self._max_steps - 1) / every + 1e-9) - int(max(0, after) / every + 1e-9)
        return 1 + max(0, in_between)

    @property
    def is_without_evaluations(self) -> bool:
        """Return whether `seconds_left` lacks the evaluations, because none has been measured."""
        return self._num_evaluations == 0 and self.num_evaluations_left > 0

    def elapsed(self) -> float:
        return self._clock() - self._began

    def seconds_left(self) -> float:
        """Return the time of the steps and evaluations that are left, each by its mean so far."""
        steps = (self._max_steps - self._step) * self.step_seconds
        mean = self.evaluation_seconds / max(1, self._num_evaluations)
        since = self._clock() - self._last_event_at
        return max(0.0, steps + self.num_evaluations_left * mean - since)


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
