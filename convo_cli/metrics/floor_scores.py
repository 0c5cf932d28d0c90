"""Scores of the floors, and a sentence that compares a model's scores with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from convo_cli.events import SampleReply
from convo_cli.metrics.floors import TrainingReplies, describe_floors, floor_replies
from convo_cli.metrics.intervals import intervals_of
from convo_cli.metrics.reply_scores import measure, scores_of


@dataclass(frozen=True, slots=True)
class FloorScores:
    """Scores of trivial replies to the turns that a model answered."""

    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By floor and metric."""
    source: str = ""
    """Source of the replies; empty if there are none."""
    sentence: str = ""
    """Sentence that names the model's scores that are no better than a floor."""


def score_floors(
    replies: Sequence[SampleReply],
    metrics: Mapping[str, float],
    training: TrainingReplies | None,
) -> FloorScores:
    """Score every floor on the turns of ``replies``, whose scores are ``metrics``."""
    if not replies:
        return FloorScores()
    source = "" if training is None else training.source
    measured = {
        name: measure(trivial) for name, trivial in floor_replies(replies, training).items()
    }
    intervals = {name: intervals_of(one) for name, one in measured.items()}
    return FloorScores(
        {name: scores_of(one) for name, one in measured.items()},
        source,
        describe_floors(metrics, intervals, source),
    )
