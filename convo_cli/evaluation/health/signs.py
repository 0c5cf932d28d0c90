"""The numbers by which the health of a run is judged, and the table of limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convo_cli.events import EvaluationDone

if TYPE_CHECKING:
    from convo_cli.data.held_out.training_facts import TrainingFacts
    from convo_cli.evaluation.health.reply_probes import Probes


@dataclass(frozen=True, slots=True)
class Threshold:
    """The limit of a statistic."""

    statistic: str
    """The number that is compared with the limit, in a few words."""
    limit: float


THRESHOLDS: Mapping[str, Threshold] = {
    "end-token": Threshold("nll of the end tokens minus nll of the other targets", 0.5),
    "end-token since step 0": Threshold("nll of the end tokens minus that at step 0", 0.2),
    "loss": Threshold("loss / loss of guessing tokens by their frequency in training", 0.9),
    "loss since step 0": Threshold("loss minus loss at step 0", 0.2),
    "echo": Threshold("nll of the reply's first token minus that of the user's first token", 1.0),
    "echo in replies": Threshold("echo of the replies minus that of the real replies", 0.5),
    "echo in the data": Threshold("share of training replies that copy the user's turn", 0.5),
    "repetition": Threshold("repetition of the replies minus that of the real replies", 0.6),
    "history": Threshold("nll after another history / nll after the reply's own, minus 1", 0.002),
    "roles": Threshold("share of dialogues that the assistant opens, training - validation", 0.25),
    "overfitting": Threshold("loss / training loss", 2.0),
}
"""Every limit, by the kind of finding and its signs."""


@dataclass(frozen=True, slots=True)
class RunSoFar:
    """Facts about a run at an evaluation, or about a finished model."""

    step: int | None
    """None for a finished model, whose evaluated data may differ from its training data."""
    start: EvaluationDone | None = None
    """The evaluation of step 0 of a run from a pretrained model."""
    training_loss: float | None = None
    """Mean over the last 100 steps."""
    frequency_loss: float | None = None
    """Loss of guessing the targets by the frequencies of tokens."""
    sum_of_rates: float = 0.0
    """Sum of the learning rates of all steps."""
    training_facts: TrainingFacts | None = None
    validation_facts: TrainingFacts | None = None


@dataclass(frozen=True, slots=True)
class Vitals:
    """The numbers of one evaluation by which health is judged."""

    scores: EvaluationDone
    probes: Probes | None = None
    """None with fewer than two real replies to compare."""
