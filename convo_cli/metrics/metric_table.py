"""Table of all metrics of generated replies: the one place where a metric is added.

The config key `evaluation.metric`, the docs, the choice of checkpoints, early stopping and every
view read this table. It imports numpy and the libraries of metrics only when a metric is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convo_cli.metrics.reply_texts import Additive, ReplyTexts

_CASED = "tok:intl+cjk|case:mixed"
_CASELESS = "tok:intl+cjk|case:folded"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of generated replies."""

    is_higher_better: bool | None
    """None if the best value is that of the real replies to the same turns."""
    highest: float | None
    """Upper end of the range, which begins at 0; None if there is none."""
    meaning: str
    """What is measured, in a few words."""
    signature: str
    """Tool, orders, smoothing, tokenization and casing, for a comparison with other programs."""
    measure: Callable[[ReplyTexts], Additive | float]
    """Return statistics of each reply, or a number if the metric is no function of their sum."""
    is_brief: bool = False
    """True if it is shown in the lines of a log, which have no room for all metrics."""
    has_floor: bool = False
    """True if it measures similarity with the real replies, so that a model should beat floors."""

    def goodness(self, value: float, real: float | None = None) -> float | None:
        """Return a number that is higher for better values.

        ``real`` is the value of the real replies. None if the metric needs it and it is not known.
        """
        if self.is_higher_better is None:
            return None if real is None else -abs(value - real)
        return value if self.is_higher_better else -value

    @property
    def direction(self) -> str:
        """Return in a few words which values are better."""
        if self.is_higher_better is None:
            return "best at the value of the real replies"
        return "higher is better" if self.is_higher_better else "lower is better"


def _bleu(order: int) -> Metric:
    def measure(texts: ReplyTexts) -> Additive:
        from convo_cli.metrics.ngram_metrics import bleu

        return bleu(texts, order)

    return Metric(
        is_higher_better=True,
        highest=100.0,
        meaning=f"corpus BLEU of 1 to {order} words"
        if order > 1
        else "corpus BLEU of single words",
        signature=f"sacrebleu:BLEU|order:{order}|smooth:exp|{_CASED}",
        measure=measure,
        is_brief=order in (2, 4),
        has_floor=True,
    )


def _nist(order: int) -> Metric:
    def measure(texts: ReplyTexts) -> float:
        from convo_cli.metrics.ngram_metrics import nist

        return nist(texts, order)

    return Metric(
        is_higher_better=True,
        highest=None,
        meaning=f"corpus NIST of 1 to {order} words: rare matches count more",
        signature=f"nltk:NIST|order:{order}|smooth:none|{_CASED}",
        measure=measure,
        is_brief=True,
        has_floor=True,
    )


def _distinct(order: int) -> Metric:
    def measure(texts: ReplyTexts) -> float:
        from convo_cli.metrics.word_metrics import distinct

        return distinct(texts, order)

    what = "words" if order == 1 else "word pairs"
    return Metric(
        is_higher_better=None,
        highest=1.0,
        meaning=f"different {what} of all replies / their number",
        signature=f"convo:distinct|order:{order}|{_CASELESS}",
        measure=measure,
    )


def _chrf(texts: ReplyTexts) -> Additive:
    from convo_cli.metrics.ngram_metrics import chrf

    return chrf(texts)


def _rouge_l(texts: ReplyTexts) -> Additive:
    from convo_cli.metrics.word_metrics import rouge_l

    return rouge_l(texts)


def _f1(texts: ReplyTexts) -> Additive:
    from convo_cli.metrics.word_metrics import token_f1

    return token_f1(texts)


def _length_ratio(texts: ReplyTexts) -> Additive:
    from convo_cli.metrics.word_metrics import length_ratio

    return length_ratio(texts)


def _stop_rate(texts: ReplyTexts) -> Additive:
    from convo_cli.metrics.word_metrics import stop_rate

    return stop_rate(texts)


def _repetition(texts: ReplyTexts) -> Additive:
    from convo_cli.metrics.word_metrics import repetition

    return repetition(texts)


def _echo(texts: ReplyTexts) -> Additive:
    from convo_cli.metrics.word_metrics import echo

    return echo(texts)


METRICS: Mapping[str, Metric] = {
    "bleu-1": _bleu(1),
    "bleu-2": _bleu(2),
    "bleu-3": _bleu(3),
    "bleu-4": _bleu(4),
    "chrf": Metric(
        is_higher_better=True,
        highest=100.0,
        meaning="corpus chrF: runs of 1 to 6 characters",
        signature="sacrebleu:chrF|nc:6|nw:0|beta:2|smooth:none|space:no|case:mixed",
        measure=_chrf,
        has_floor=True,
    ),
    "nist-2": _nist(2),
    "nist-4": _nist(4),
    "rouge-l": Metric(
        is_higher_better=True,
        highest=1.0,
        meaning="longest common sequence of words, mean F1 of the replies",
        signature=f"convo:ROUGE-L|beta:1|stem:no|{_CASELESS}",
        measure=_rouge_l,
        has_floor=True,
    ),
    "f1": Metric(
        is_higher_better=True,
        highest=1.0,
        meaning="common words in any order, mean F1 of the replies",
        signature=f"convo:F1|articles:yes|punctuation:yes|{_CASELESS}",
        measure=_f1,
        has_floor=True,
        is_brief=True,
    ),
    "distinct-1": _distinct(1),
    "distinct-2": _distinct(2),
    "length-ratio": Metric(
        is_higher_better=None,
        highest=None,
        meaning="words of the replies / words of the real ones",
        signature=f"convo:length|ref:closest|{_CASED}",
        measure=_length_ratio,
    ),
    "stop-rate": Metric(
        is_higher_better=True,
        highest=1.0,
        meaning="share of replies that the model ended before the token limit",
        signature="convo:stop",
        measure=_stop_rate,
        is_brief=True,
    ),
    "repetition": Metric(
        is_higher_better=None,
        highest=1.0,
        meaning="mean share of a reply's 4-word sequences that repeat an earlier one",
        signature=f"convo:seq-rep|order:4|{_CASELESS}",
        measure=_repetition,
        is_brief=True,
    ),
    "echo": Metric(
        is_higher_better=None,
        highest=1.0,
        meaning="mean share of a reply's word pairs that are in the last user turn",
        signature=f"convo:echo|order:2|{_CASELESS}",
        measure=_echo,
        is_brief=True,
    ),
}
"""All metrics, in the order in which they are shown."""


def goodness(name: str, value: float, real_scores: Mapping[str, float]) -> float | None:
    """Return a number that is higher for better values of a metric, or of the loss.

    None if the best value is that of the real replies and ``real_scores`` lacks it. A metric that
    only another version of convo has is taken as higher is better.
    """
    if name == "loss":
        return -value
    metric = METRICS.get(name)
    return value if metric is None else metric.goodness(value, real_scores.get(name))


def brief(metrics: Mapping[str, float], chosen: str = "") -> dict[str, float]:
    """Return the metrics that a line of a log shows: brief ones, ``chosen`` and unknown ones."""
    return {
        name: value
        for name, value in metrics.items()
        if name == chosen or (metric := METRICS.get(name)) is None or metric.is_brief
    }


def written(name: str, value: float) -> str:
    """Format a loss, or a score between 0 and 1, with three decimals, other scores with two."""
    metric = METRICS.get(name)
    is_fine = name == "loss" or (metric is not None and metric.highest == 1.0)
    return f"{value:.{3 if is_fine else 2}f}"
