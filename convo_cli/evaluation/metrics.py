"""Metrics of generated replies: comparisons of their words with those of the references.

A metric is a function of two lists of texts whose words are separated by spaces, and an entry in
`METRICS`; its name is in `MetricName`, the type of the config key. Higher is better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from convo_cli.config.schema import MetricName
from convo_cli.events import SampleReply


def score_replies(replies: Sequence[SampleReply]) -> dict[str, float]:
    """Compute every metric of the replies; empty if there are none.

    Words are those of sacrebleu's "intl" tokenization; kana and Chinese characters, which are
    written without spaces, count one by one.
    """
    if not replies:
        return {}
    hypotheses = [_words(reply.reply) for reply in replies]
    references = [_words(reply.reference) for reply in replies]
    return {name: metric(hypotheses, references) for name, metric in METRICS.items()}


def _bleu(hypotheses: Sequence[str], references: Sequence[str], *, order: int) -> float:
    """Corpus BLEU, 0 to 100 (Papineni et al. 2002), with sacrebleu's exponential smoothing."""
    from sacrebleu.metrics.bleu import BLEU

    scorer: BLEU = BLEU(tokenize="none", max_ngram_order=order, smooth_method="exp")
    return float(scorer.corpus_score(list(hypotheses), [list(references)]).score)


def _nist(hypotheses: Sequence[str], references: Sequence[str], *, order: int) -> float:
    """Corpus NIST, 0 upwards: n-grams weighted by their information (Doddington 2002)."""
    from nltk.translate.nist_score import corpus_nist

    pairs = [(ref.split(), hyp.split()) for ref, hyp in zip(references, hypotheses, strict=True)]
    longest = max((len(hyp) for _, hyp in pairs), default=0)
    if longest == 0 or not any(ref for ref, _ in pairs):
        return 0.0
    # nltk 3.10 divides by the number of n-grams, which is 0 for an order that no reply is long
    # enough for.
    return float(
        corpus_nist([[ref] for ref, _ in pairs], [hyp for _, hyp in pairs], n=min(order, longest))
    )


METRICS: Mapping[MetricName, Callable[[Sequence[str], Sequence[str]], float]] = {
    "bleu-2": partial(_bleu, order=2),
    "bleu-4": partial(_bleu, order=4),
    "nist-2": partial(_nist, order=2),
    "nist-4": partial(_nist, order=4),
}
"""All metrics, in the order in which they are shown."""


def _words(text: str) -> str:
    """Separate words by spaces; each letter of a script without spaces becomes a word."""
    from sacrebleu.tokenizers.tokenizer_intl import TokenizerV14International

    spaced = "".join(f" {char} " if _is_unspaced(char) else char for char in text)
    return " ".join(TokenizerV14International()(spaced).split())


def _is_unspaced(char: str) -> bool:
    code = ord(char)
    return 0x3040 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF
