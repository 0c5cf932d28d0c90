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

_CASED = "words: sacrebleu's intl, kana and Chinese characters one by one; case: mixed"
_CASELESS = "words: sacrebleu's intl, kana and Chinese characters one by one; case: folded"


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
    """Tokenization, casing, smoothing and references: what another tool must do to compare."""
    measure: Callable[[ReplyTexts], Additive | float]
    """Return statistics of each reply, or a number if the metric is no function of their sum."""

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
        signature=f"sacrebleu, orders 1 to {order}, smoothing exp; {_CASED}",
        measure=measure,
    )


def _nist(order: int) -> Metric:
    def measure(texts: ReplyTexts) -> float:
        from convo_cli.metrics.ngram_metrics import nist

        return nist(texts, order)

    return Metric(
        is_higher_better=True,
        highest=None,
        meaning=f"corpus NIST of 1 to {order} words: rare matches count more",
        signature=f"nltk, orders 1 to {order}, no smoothing; {_CASED}",
        measure=measure,
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
        signature=f"convo; {_CASELESS}",
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
        signature="sacrebleu, character orders 1 to 6, no word orders, beta 2, no smoothing; "
        "case: mixed, white space removed",
        measure=_chrf,
    ),
    "nist-2": _nist(2),
    "nist-4": _nist(4),
    "rouge-l": Metric(
        is_higher_better=True,
        highest=1.0,
        meaning="longest common sequence of words, mean F1 of the replies",
        signature=f"convo, beta 1, no stemming; {_CASELESS}",
        measure=_rouge_l,
    ),
    "f1": Metric(
        is_higher_better=True,
        highest=1.0,
        meaning="words in common in any order, mean F1 of the replies",
        signature=f"convo, punctuation and articles count; {_CASELESS}",
        measure=_f1,
    ),
    "distinct-1": _distinct(1),
    "distinct-2": _distinct(2),
    "length-ratio": Metric(
        is_higher_better=None,
        highest=None,
        meaning="words of the replies / words of the real ones",
        signature=f"convo, the reference of the closest length; {_CASED}",
        measure=_length_ratio,
    ),
    "stop-rate": Metric(
        is_higher_better=True,
        highest=1.0,
        meaning="share of replies that the model ended before the token limit",
        signature="convo",
        measure=_stop_rate,
    ),
    "repetition": Metric(
        is_higher_better=None,
        highest=1.0,
        meaning="share of a reply's 4-word sequences that it said before, mean",
        signature=f"convo, seq-rep-4; {_CASELESS}",
        measure=_repetition,
    ),
    "echo": Metric(
        is_higher_better=None,
        highest=1.0,
        meaning="share of a reply's word pairs that the last user turn has, mean",
        signature=f"convo, of a reply of one word the word; {_CASELESS}",
        measure=_echo,
    ),
}
"""All metrics, in the order in which they are shown."""
