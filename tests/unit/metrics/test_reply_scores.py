"""Metrics of replies, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.events import SampleReply
from convo_cli.metrics.metric_table import METRICS
from convo_cli.metrics.reply_scores import score_replies
from tests.cases import num_examples


def said(*pairs):
    """Replies beside the references."""
    return [SampleReply((), reference, reply, True) for reply, reference in pairs]


def test_bleu_and_nist_of_one_reply_are_those_of_the_papers():
    scores = score_replies(said(("the cat sat on mat", "the cat sat on the mat")))
    brevity = math.exp(1 - 6 / 5)
    assert scores["bleu-2"] == pytest.approx(100 * brevity * (5 / 5 * 3 / 4) ** (1 / 2))
    assert scores["bleu-4"] == pytest.approx(
        100 * brevity * (5 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4)
    )
    # Information: of a word log2(6 / its count), of "the cat" log2(2 / 1), of the other word pairs
    # log2(1 / 1).
    information = (math.log2(6 / 2) + 4 * math.log2(6)) / 5 + (1 + 0 + 0) / 4
    penalty = math.exp(math.log(0.5) / math.log(1.5) ** 2 * math.log(5 / 6) ** 2)
    assert scores["nist-2"] == pytest.approx(information * penalty)
    assert scores["nist-4"] == pytest.approx(information * penalty), (
        "longer matches were certain: no information"
    )


def test_scores_are_those_of_the_corpus_not_the_mean_of_replies():
    scores = score_replies(said(("a b c", "a b c"), ("x", "a b c d e")))
    # Words 3 of 4, pairs 2 of 2; 4 words for 8.
    assert scores["bleu-2"] == pytest.approx(100 * math.exp(1 - 8 / 4) * math.sqrt(3 / 4 * 2 / 2))


def test_a_word_counts_as_often_as_the_reference_says_it():
    assert score_replies(said(("the the the the", "the cat sat down")))["bleu-2"] == pytest.approx(
        100 * math.sqrt(1 / 4 * (1 / 2) / 3)  # no pair fits: smoothed to a half
    )


@pytest.mark.parametrize(
    "text",
    [
        "Well, I would say so: yes!",
        "오늘 날씨가 정말 좋네요 그렇죠",
        "今日はとても良い天気ですね",
        "今天 天气 很 好 吗",
        "a b c d 🙂",
    ],
)
def test_identical_replies_have_a_bleu_of_100(text):
    scores = score_replies(said((text, text), (text, text)))
    assert scores["bleu-2"] == pytest.approx(100)
    assert scores["bleu-4"] == pytest.approx(100)
    assert scores["nist-2"] > 0


def test_kana_and_chinese_characters_count_one_by_one_and_punctuation_is_a_word():
    # 今日 は 雨 and 今日 は 晴 share three of four characters and two of three pairs.
    assert score_replies(said(("今日は雨", "今日は晴")))["bleu-2"] == pytest.approx(
        100 * math.sqrt(3 / 4 * 2 / 3)
    )
    assert score_replies(said(("yes!", "yes !")))["bleu-2"] == pytest.approx(100)


@pytest.mark.parametrize(
    "pairs",
    [
        [("", "hello there")],
        [("", "")],
        [("hello", "")],
        [("hello", "hello")],
        [("x", "hello there"), ("", "you")],
        [("    ", "\n")],
        [("x y", "a b c")],
    ],
)  # fmt: skip
def test_empty_and_one_word_replies_have_finite_scores(pairs):
    scores = score_replies(said(*pairs))
    assert scores.keys() == METRICS.keys()
    assert all(math.isfinite(score) and 0 <= score <= 100 for score in scores.values())


def test_one_right_word_has_a_nist_score_and_an_empty_reply_has_none():
    assert score_replies(said(("hello", "hello you")))["nist-2"] > 0
    assert score_replies(said(("", "hello you")))["nist-2"] == 0


def test_no_replies_have_no_scores():
    assert score_replies([]) == {}


TEXTS = st.text(st.sampled_from("ab yz.!今は안 \n"), max_size=12)


@settings(max_examples=num_examples(100), deadline=None)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_any_replies_have_finite_scores_and_none_beats_the_reference_itself(pairs):
    scores = score_replies(said(*pairs))
    best = score_replies(said(*((reference, reference) for _, reference in pairs)))
    assert all(math.isfinite(score) for score in scores.values())
    assert 0 <= scores["bleu-2"] <= 100 + 1e-9
    assert scores["nist-2"] >= 0
    assert scores["bleu-4"] <= best["bleu-4"] + 1e-9 or best["bleu-4"] == 0
