"""Metrics of the words of replies: overlap with the real reply, variety, length, faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from convo_cli.metrics.reply_texts import Additive, Array, ReplyTexts

Words = Sequence[str]


def token_f1(texts: ReplyTexts) -> Additive:
    """Compute the mean F1 of bags of words, with the closest real reply (Rajpurkar et al. 2016)."""
    return _mean_of_closest(texts, _bag_f1)


def rouge_l(texts: ReplyTexts) -> Additive:
    """Compute the mean ROUGE-L with the closest real reply (Lin 2004), with a beta of 1."""
    return _mean_of_closest(texts, _sequence_f1)


def distinct(texts: ReplyTexts, order: int) -> float:
    """Compute the distinct n-grams of all replies divided by all n-grams (Li et al. 2016)."""
    ngrams = [ngram for words in texts.folded_replies for ngram in _ngrams(words, order)]
    return len(set(ngrams)) / max(1, len(ngrams))


def length_ratio(texts: ReplyTexts) -> Additive:
    """Compute the words of the replies divided by those of the real replies closest in length."""
    rows = []
    for words, several in zip(texts.reply_words, texts.reference_words, strict=True):
        length = len(words)
        closest = min((len(other) for other in several), key=lambda n: (abs(n - length), n))
        rows.append((length, closest))
    return Additive(np.array(rows, dtype=np.float64).reshape(-1, 2), _ratio)


def stop_rate(texts: ReplyTexts) -> Additive:
    """Compute the share of the replies that ended with a stop token."""
    return _mean(float(sample.stopped) for sample in texts.samples)


def repetition(texts: ReplyTexts) -> Additive:
    """Compute the mean share of a reply's 4-grams that repeat an earlier one.

    This is seq-rep-4 (Welleck et al. 2020); 0 for a reply of fewer than four words.
    """
    return _mean(_share_repeated(words) for words in texts.folded_replies)


def echo(texts: ReplyTexts) -> Additive:
    """Compute the mean share of a reply's word pairs that are in the last user turn.

    A reply of one word counts by that word.
    """
    pairs = zip(texts.folded_replies, texts.folded_prompts, strict=True)
    return _mean(_share_copied(reply, prompt) for reply, prompt in pairs)


def _mean_of_closest(texts: ReplyTexts, similarity: Callable[[Words, Words], float]) -> Additive:
    pairs = zip(texts.folded_replies, texts.folded_references, strict=True)
    return _mean(max(similarity(words, other) for other in several) for words, several in pairs)


def _mean(values: Iterable[float]) -> Additive:
    rows = [(value, 1.0) for value in values]
    return Additive(np.array(rows, dtype=np.float64).reshape(-1, 2), _ratio)


def _ratio(sums: Array) -> Array:
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1))


def _bag_f1(words: Words, other: Words) -> float:
    return _f1((Counter(words) & Counter(other)).total(), words, other)


def _sequence_f1(words: Words, other: Words) -> float:
    return _f1(_common_length(words, other), words, other)


def _f1(num_common: int, words: Words, other: Words) -> float:
    return 2 * num_common / max(1, len(words) + len(other))


def _common_length(words: Words, other: Words) -> int:
    """Return the length of the longest common subsequence.

    Each bit of ``row`` is a place in ``words``; a cleared one ends a longer subsequence (Hyyrö
    2004).
    """
    places: dict[str, int] = {}
    for place, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << place
    everything = (1 << len(words)) - 1
    row = everything
    for word in other:
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & everything
    return len(words) - row.bit_count()


def _share_repeated(words: Words) -> float:
    ngrams = _ngrams(words, 4)
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _share_copied(words: Words, prompt: Words) -> float:
    if not words:
        return 0.0
    order = min(2, len(words))
    own = Counter(_ngrams(words, order))
    return (own & Counter(_ngrams(prompt, order))).total() / own.total()


def _ngrams(words: Words, order: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + order]) for start in range(len(words) - order + 1)]
