"""Advice about the settings of a run, given once the numbers of the run show the need for it."""

from __future__ import annotations

from convo_cli.cli.views.progress.meter import Clock, Meter, duration
from convo_cli.data.sizing.choices import EPOCHS
from convo_cli.errors import typeable
from convo_cli.events import EvaluationDone, Event, Notice, RunStarted, StepDone
from convo_cli.wording import counted

_MEASURED_STEPS = 10
"""Steps after which the mean time of a step is a fair estimate."""
_MAX_EPOCHS = 30
"""Epochs after which a run mostly memorises; the sample config has 26."""
_MAX_STEPS_AT_RISK = 10_000
_MAX_SECONDS_AT_RISK = 600.0
_MIN_EVALUATION_SECONDS = 10.0
"""Evaluations that take less time in total get no advice."""


class Adviser:
    """Returns a notice when an event reveals an unsuitable setting, each at most once."""

    def __init__(self, clock: Clock) -> None:
        self._meter = Meter(clock)
        self._started: RunStarted | None = None
        self._num_steps = 0
        self._has_judged_evaluations = False

    def __call__(self, event: Event) -> Notice | None:
        message = None
        match event:
            case RunStarted():
                self._meter.start(event)
                self._started = event
                message = _on_data(event)
            case StepDone() if self._started:
                self._meter.add(event)
                self._num_steps += 1
                if self._num_steps == min(_MEASURED_STEPS, event.max_steps):
                    message = _on_checkpoints(self._started, self._meter.step_seconds)
            case EvaluationDone() if self._started:
                self._meter.add_evaluation(event)
                if self._num_steps > 1 and not self._has_judged_evaluations:
                    message = _on_evaluations(self._started, event, self._meter.step_seconds)
                    self._has_judged_evaluations = message is not None
        return None if message is None else Notice(message)


def _on_data(started: RunStarted) -> str | None:
    """Say if a run repeats its data very often, or never sees more than half of it."""
    if started.first_step > 1:
        return None
    messages = (_on_batches(started), _on_repetition(started), _on_unseen_data(started))
    return "; ".join(filter(None, messages)) or None


def _on_batches(started: RunStarted) -> str | None:
    examples = started.training.num_examples
    if started.batch_size is None or started.batch_size <= examples:
        return None
    return (
        f"training.batch_size is {started.batch_size:,}, but the training data has "
        f"{counted(examples, 'example')}, so each step repeats some of them"
    )


def _on_repetition(started: RunStarted) -> str | None:
    steps, epoch = started.max_steps, started.steps_per_epoch
    if steps <= _MAX_EPOCHS * epoch:
        return None
    return (
        f"this run trains {steps / epoch:,.0f} times on each dialogue, so the model will mostly "
        f"memorise the training data; {EPOCHS} epochs are {counted(EPOCHS * epoch, 'step')} "
        "(training.max_steps)"
    )


def _on_unseen_data(started: RunStarted) -> str | None:
    steps, epoch = started.max_steps, started.steps_per_epoch
    if 2 * steps > epoch:
        return None
    return (
        f"this run trains on {_percent(steps / epoch)} of the training data: it has "
        f"{counted(steps, 'step')}, and one epoch has {epoch:,} (training.max_steps or "
        "training.epochs)"
    )


def _on_checkpoints(started: RunStarted, step_seconds: float) -> str | None:
    """Say how much work a crash would lose, if it is much."""
    gap = int(min(started.steps_per_checkpoint or started.max_steps, started.max_steps))
    if gap < _MAX_STEPS_AT_RISK and gap * step_seconds < _MAX_SECONDS_AT_RISK:
        return None
    often = _rounded(min(gap / 10, _MAX_SECONDS_AT_RISK / 2 / max(step_seconds, 1e-9)))
    time = f"{counted(gap, 'step')} (about {duration(gap * step_seconds)})"
    when = f"only at the end, after {time}" if gap == started.max_steps else f"every {time}"
    return (
        f"a checkpoint is saved {when}; a crash loses all steps since the last one. To save more "
        "often: press Ctrl-C, which saves and stops, and continue with "
        f"`convo resume {typeable(started.run_dir)} --set checkpoints.every_steps={often}`"
    )


def _on_evaluations(started: RunStarted, event: EvaluationDone, step_seconds: float) -> str | None:
    """Say which part of the time goes into evaluations, if it is more than half."""
    every = min(started.steps_per_evaluation or started.max_steps, started.max_steps)
    total = event.seconds * started.max_steps / every
    share = event.seconds / max(event.seconds + every * step_seconds, 1e-9)
    if share <= 0.5 or total < _MIN_EVALUATION_SECONDS:
        return None
    return (
        f"evaluations take about {_percent(share)} of the time of this run: each takes "
        f"{duration(event.seconds)}, and the {counted(round(every), 'step')} before it "
        f"{duration(every * step_seconds)}. Raise evaluation.every_steps to evaluate less often, "
        "or lower evaluation.reply_dialogues, generation.max_new_tokens or "
        "evaluation.max_dialogues to make each evaluation shorter"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%"


def _rounded(number: float) -> int:
    """Round down to one digit and zeros, at least 1."""
    digits = str(max(1, int(number)))
    return int(digits[0] + "0" * (len(digits) - 1))
