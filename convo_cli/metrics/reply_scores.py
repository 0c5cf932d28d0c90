"""Scores of replies by all metrics, and of the real replies in their place."""

from __future__ import annotations

from collections.abc import Sequence

from convo_cli.events import SampleReply
from convo_cli.metrics.metric_table import METRICS
from convo_cli.metrics.reply_texts import Additive, ReplyTexts


def score_replies(replies: Sequence[SampleReply]) -> dict[str, float]:
    """Compute every metric of the replies; empty if there are none."""
    return scores_of(measure(replies))


def score_real_replies(replies: Sequence[SampleReply]) -> dict[str, float]:
    """Score the real replies to the same turns by the metrics whose best value is theirs."""
    if not replies:
        return {}
    real = ReplyTexts(replies).real()
    closest = {name: one for name, one in METRICS.items() if one.is_higher_better is None}
    return scores_of({name: metric.measure(real) for name, metric in closest.items()})


def measure(replies: Sequence[SampleReply]) -> dict[str, Additive | float]:
    """Compute the statistics of every metric; empty if there are no replies."""
    if not replies:
        return {}
    texts = ReplyTexts(replies)
    return {name: metric.measure(texts) for name, metric in METRICS.items()}


def scores_of(measured: dict[str, Additive | float]) -> dict[str, float]:
    """Return the value of each metric."""
    return {name: one.value if isinstance(one, Additive) else one for name, one in measured.items()}
