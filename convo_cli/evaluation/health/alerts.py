"""Reporter that warns about signs that a run is going wrong, once for each sign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from convo_cli.evaluation.health.signs import THRESHOLDS
from convo_cli.evaluation.health.training_curve import SMOOTHED_STEPS, TrainingCurve
from convo_cli.events import Emit, EvaluationDone, Event, Notice, StepDone
from convo_cli.runs.logs.evaluations import evaluation_of

_OVERFITTING = "overfitting"


class Alerts:
    """Emit a warning for each kind of finding of the evaluations, and for overfitting.

    ``records`` are those of metrics.jsonl before the first step of this process. An earlier process
    already warned about them, and with them a resumed run judges like one that never stopped.
    """

    def __init__(self, emit: Emit, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self._emit = emit
        self.curve = TrainingCurve()
        self._losses: dict[int, float] = {}  # of the validation data, by step
        self._reported: set[str] = set()
        for record in records:
            if record.get("event") == "step":
                self.curve.add(record["loss"], record["learning_rate"], record["num_targets"])
            elif record.get("event") == "evaluation" and (evaluation := evaluation_of(record)):
                self._take(evaluation)

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self.curve.add(event.loss, event.learning_rate, event.num_targets)
        elif isinstance(event, EvaluationDone):
            for message in self._take(event):
                self._emit(Notice(message, is_warning=True))

    def finish(self) -> None:
        """Warn at the end of a run if training never improved on the pretrained model."""
        later = {step: loss for step, loss in self._losses.items() if step > 0}
        if not later or 0 not in self._losses:
            return
        best = min(later, key=later.__getitem__)
        if later[best] >= self._losses[0]:
            message = (
                "training did not improve the pretrained model: its validation loss was "
                f"{self._losses[0]:.3f} at step 0, and later {later[best]:.3f} at best (step "
                f"{best:,}); lower training.learning_rate, and check that the validation data is "
                "of the same kind as the training data; chat, evaluate and export load step 0"
            )
            self._emit(Notice(message, is_warning=True))

    def _take(self, event: EvaluationDone) -> list[str]:
        """Record an evaluation, and return the messages about signs that no earlier one had."""
        self._losses[event.step] = event.loss
        signs = {finding.kind: finding.message for finding in event.findings}
        if message := overfitting(event, self.curve.loss):
            signs[_OVERFITTING] = message
        new = [message for kind, message in signs.items() if kind not in self._reported]
        self._reported |= signs.keys()
        return new


def overfitting(event: EvaluationDone, training_loss: float | None) -> str | None:
    """Return a warning if the validation loss is far above the training loss.

    ``training_loss`` is the mean of the last 100 steps.
    """
    limit = THRESHOLDS[_OVERFITTING].limit
    if training_loss is None or event.loss <= limit * training_loss:
        return None
    return (
        f"the validation loss at step {event.step:,} is {event.loss:.3f}, over {limit:g} times the "
        f"training loss, {training_loss:.3f} (mean of the last {SMOOTHED_STEPS} steps): the "
        "model probably memorises the training data (overfitting); chat, evaluate and export load "
        "the checkpoint with the lowest validation loss. Set evaluation.early_stopping.patience or "
        "fewer steps, or train on more data"
    )
