"""Intervals: sums of per-reply statistics give the corpus score, and resamples spread around it."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.events import SampleReply
from convo_cli.metrics.intervals import (
    NUM_RESAMPLES,
    intervals_of,
    paired_intervals,
    resampled_sums,
)
from convo_cli.metrics.metric_table import METRICS
from convo_cli.metrics.reply_scores import measure, score_replies
from convo_cli.metrics.reply_texts import Additive, words
from tests.cases import num_examples
from tests.conftest import corpus as real_corpus

WITHOUT = {"nist-2", "nist-4", "distinct-1", "distinct-2"}

WORDS = st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "Yes", "!", "안녕", "今日は"])
TEXTS = st.lists(WORDS, max_size=8).map(" ".join)
REPLIES = st.lists(
    st.builds(
        SampleReply,
        history=st.tuples(st.tuples(st.just("user"), TEXTS)),
        reference=TEXTS,
        reply=TEXTS,
        stopped=st.booleans(),
        other_references=st.lists(TEXTS, max_size=2).map(tuple),
    ),
    min_size=1,
    max_size=6,
)


def spaced(text):
    return " ".join(words(text))


def streams(replies, form=str):
    """sacrebleu's form of several references: one list for each place, None where there is none."""
    texts = [(one.reference, *one.other_references) for one in replies]
    return [
        [form(several[place]) if place < len(several) else None for several in texts]
        for place in range(max(map(len, texts)))
    ]


@settings(max_examples=num_examples(60), deadline=None)
@given(replies=REPLIES)
def test_bleu_and_chrf_of_the_sums_are_those_of_sacrebleu(replies):
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    scores = score_replies(replies)
    for order in (1, 2, 3, 4):
        bleu = BLEU(tokenize="none", max_ngram_order=order, force=True)
        expected = bleu.corpus_score(
            [spaced(one.reply) for one in replies], streams(replies, spaced)
        ).score
        assert scores[f"bleu-{order}"] == pytest.approx(expected, abs=1e-9)
    expected = CHRF().corpus_score([one.reply for one in replies], streams(replies)).score
    assert scores["chrf"] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=num_examples(60), deadline=None)
@given(replies=REPLIES, data=st.data())
def test_a_resampled_corpus_has_the_score_of_its_replies(replies, data):
    """The law of the bootstrap: summed statistics of any replies are those of that corpus."""
    places = data.draw(st.lists(st.integers(0, len(replies) - 1), min_size=1, max_size=8))
    direct = score_replies([replies[place] for place in places])
    for name, metric in measure(replies).items():
        assert isinstance(metric, Additive) == (name not in WITHOUT)
        if isinstance(metric, Additive):
            of_sums = float(metric.of_sums(metric.rows[places].sum(axis=0)))
            assert of_sums == pytest.approx(direct[name], abs=1e-9), name


@settings(max_examples=num_examples(30), deadline=None)
@given(replies=REPLIES)
def test_a_reference_that_is_listed_twice_counts_once(replies):
    twice = [
        replace(one, other_references=(*one.other_references, one.reference)) for one in replies
    ]
    assert score_replies(twice) == score_replies(replies)


@settings(max_examples=30, deadline=None)
@given(replies=REPLIES)
def test_the_order_of_the_replies_changes_nothing(replies):
    one, other = score_replies(replies), score_replies(replies[::-1])
    assert {name: pytest.approx(value, abs=1e-9) for name, value in one.items()} == other


def corpus(seed, num=200, skill=0.3):
    """Replies of random words, of which a share is that of the real reply."""
    rng = np.random.default_rng(seed)
    vocabulary = [f"w{number}" for number in range(40)]
    replies = []
    for _ in range(num):
        real = rng.choice(vocabulary, rng.integers(4, 12)).tolist()
        said = [word if rng.random() < skill else str(rng.choice(vocabulary)) for word in real]
        replies.append(
            SampleReply((("user", "go"),), " ".join(real), " ".join(said), bool(rng.random() < 0.8))
        )
    return replies


def test_the_interval_contains_the_score_and_is_the_same_for_the_same_seed():
    replies = corpus(0)
    scores, intervals = score_replies(replies), intervals_of(measure(replies))
    assert intervals.keys() == METRICS.keys() - WITHOUT
    for name, (low, high) in intervals.items():
        assert low <= scores[name] <= high, name
    for name in ("bleu-2", "f1", "chrf", "stop-rate"):
        assert intervals[name][0] < intervals[name][1]
    assert intervals_of(measure(replies)) == intervals
    assert intervals_of(measure(replies), seed=1) != intervals


def test_the_interval_of_a_share_is_as_wide_as_the_binomial_one():
    replies = corpus(1, num=400)
    low, high = intervals_of(measure(replies))["stop-rate"]
    share = score_replies(replies)["stop-rate"]
    assert high - low == pytest.approx(2 * 1.96 * (share * (1 - share) / 400) ** 0.5, rel=0.15)


def test_a_single_reply_has_no_interval():
    assert intervals_of(measure(corpus(0, num=1))) == {}
    assert intervals_of(measure([])) == {}
    assert paired_intervals([], []) == {}


def test_resampled_sums_draw_as_many_rows_as_there_are():
    sums = resampled_sums(np.ones((7, 2)))
    assert sums.shape == (NUM_RESAMPLES, 2)
    assert (sums == 7).all()


def test_the_intervals_of_many_replies_need_little_memory():
    """A count for each reply and resample would be 800 MB here."""
    rows = np.random.default_rng(0).random((100_000, 2))
    tracemalloc.start()
    try:
        found = intervals_of({"f1": Additive(rows, lambda sums: sums[..., 0] / sums[..., 1])})
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert found["f1"] == pytest.approx((0.995, 1.005), abs=0.005)


def with_skill(replies, skill, seed):
    rng = np.random.default_rng(seed)
    return [
        SampleReply(
            one.history,
            one.reference,
            " ".join(word if rng.random() < skill else "no" for word in one.reference.split()),
            True,
        )
        for one in replies
    ]


def test_two_models_are_compared_on_the_same_turns():
    turns = corpus(3)
    strong, weak = with_skill(turns, 0.6, 1), with_skill(turns, 0.4, 2)
    difference = paired_intervals(strong, weak)
    for name in ("bleu-2", "f1", "rouge-l", "chrf"):
        low, high = difference[name]
        own = score_replies(strong)[name] - score_replies(weak)[name]
        assert 0 < low <= own <= high, name
    reverse = paired_intervals(weak, strong)
    assert reverse["f1"] == pytest.approx((-difference["f1"][1], -difference["f1"][0]))
    assert set(paired_intervals(strong, strong).values()) == {(0.0, 0.0)}


def test_a_paired_interval_is_narrower_than_that_of_either_model():
    turns = corpus(4)
    one = with_skill(turns, 0.5, 1)
    other = [*one[:190], *with_skill(turns, 0.5, 2)[190:]]
    low, high = paired_intervals(one, other)["f1"]
    own = intervals_of(measure(one))["f1"]
    assert high - low < (own[1] - own[0]) / 2


def test_other_turns_are_refused():
    with pytest.raises(ValueError, match="different turns"):
        paired_intervals(corpus(0), corpus(1))
    with pytest.raises(ValueError, match="different turns"):
        paired_intervals(corpus(0), corpus(0)[:-1])


def test_korean_replies_have_overlap_in_every_metric_of_words():
    file = real_corpus("hg_tods_ko") / "test.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()[:60]
    turns = [json.loads(line) for line in lines]
    replies = [
        SampleReply((("user", one[0]),), one[1], other[1], True) for one, other in pairwise(turns)
    ]
    scores = score_replies(replies)
    assert min(scores[name] for name in ("bleu-2", "chrf", "nist-2", "rouge-l", "f1")) > 0
    assert scores["distinct-1"] > 0.1
