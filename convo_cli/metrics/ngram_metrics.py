"""BLEU and chrF by sacrebleu, NIST by nltk: n-grams that replies share with the real ones.

sacrebleu counts the n-grams of each reply. The score is computed from sums of these counts, for the
corpus and for thousands of resampled corpora at once, and equals sacrebleu's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from convo_cli.metrics.reply_texts import Additive, Array, ReplyTexts

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacrebleuMetric

_BLEU_ORDER = 4
_CHRF_ORDER = 6
_CHRF_BETA = 2


def bleu(texts: ReplyTexts, order: int) -> Additive:
    """Compute corpus BLEU, 0 to 100 (Papineni et al. 2002), with exponential smoothing."""
    if "bleu" not in texts.shared:
        from sacrebleu.metrics.bleu import BLEU

        scorer = BLEU(tokenize="none", max_ngram_order=_BLEU_ORDER, force=True)
        texts.shared["bleu"] = _statistics(
            scorer,
            [" ".join(words) for words in texts.reply_words],
            [[" ".join(words) for words in several] for several in texts.reference_words],
        )
    rows: Array = texts.shared["bleu"]
    return Additive(rows, lambda sums: _bleu_of_sums(sums, order))


def _bleu_of_sums(sums: Array, order: int) -> Array:
    """Compute BLEU of (reply words, reference words, matches by order, n-grams by order)."""
    length, reference_length = sums[..., 0], sums[..., 1]
    matches = sums[..., 2 : 2 + order]
    totals = sums[..., 2 + _BLEU_ORDER : 2 + _BLEU_ORDER + order]
    is_missed = matches == 0
    halvings = 2.0 ** np.cumsum(is_missed, axis=-1)
    numerators = np.where(is_missed, 1 / halvings, matches)
    logs = np.log(numerators / np.maximum(totals, 1)).mean(axis=-1)
    penalty = np.minimum(0.0, 1 - reference_length / np.maximum(length, 1))
    is_defined = ~is_missed.all(axis=-1) & (totals > 0).all(axis=-1)
    return np.where(is_defined, 100 * np.exp(logs + penalty), 0.0)


def chrf(texts: ReplyTexts) -> Additive:
    """Compute corpus chrF, 0 to 100 (Popović 2015): runs of 1 to 6 characters, beta 2."""
    from sacrebleu.metrics.chrf import CHRF

    scorer = CHRF(char_order=_CHRF_ORDER, beta=_CHRF_BETA)
    rows = _statistics(scorer, texts.replies, texts.references)
    return Additive(rows, _chrf_of_sums)


def _chrf_of_sums(sums: Array) -> Array:
    """Compute chrF of (n-grams of replies, of references, matches) by order."""
    counts = sums.reshape(*sums.shape[:-1], _CHRF_ORDER, 3)
    replies, references, matches = counts[..., 0], counts[..., 1], counts[..., 2]
    is_counted = (replies > 0) & (references > 0)
    num_counted = np.maximum(is_counted.sum(axis=-1), 1)
    precision = (is_counted * matches / np.maximum(replies, 1)).sum(axis=-1) / num_counted
    recall = (is_counted * matches / np.maximum(references, 1)).sum(axis=-1) / num_counted
    weight = _CHRF_BETA**2
    below = weight * precision + recall
    above = (1 + weight) * precision * recall
    return np.asarray(100 * np.divide(above, below, out=np.zeros_like(below), where=below > 0))


def nist(texts: ReplyTexts, order: int) -> float:
    """Compute corpus NIST, 0 and up: n-grams weighted by their information (Doddington 2002)."""
    from nltk.translate.nist_score import corpus_nist

    longest = max((len(words) for words in texts.reply_words), default=0)
    if longest == 0 or not any(any(several) for several in texts.reference_words):
        return 0.0
    # nltk 3.10 divides by the number of n-grams, which is 0 for orders above the longest reply.
    return float(
        corpus_nist(
            [[list(words) for words in several] for several in texts.reference_words],
            [list(words) for words in texts.reply_words],
            n=min(order, longest),
        )
    )


def _statistics(
    scorer: SacrebleuMetric, replies: Sequence[str], references: Sequence[Sequence[str]]
) -> Array:
    """Return sacrebleu's counts of each reply, (N, K)."""
    # One reply at a time, because a corpus needs as many streams as its reply with most references.
    rows = [
        scorer._extract_corpus_statistics([reply], [[text] for text in several])[0]
        for reply, several in zip(replies, references, strict=True)
    ]
    return np.array(rows, dtype=np.float64)
