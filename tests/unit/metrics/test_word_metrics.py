"""Metrics of words on cases worked out by hand, by their published definitions."""

from __future__ import annotations

import math

import pytest

from convo_cli.events import SampleReply
from convo_cli.metrics.reply_scores import score_real_replies, score_replies
from convo_cli.metrics.reply_texts import words


def said(reply, reference, *others, prompt="", stopped=True):
    history = (("user", prompt),) if prompt else ()
    return SampleReply(history, reference, reply, stopped, others)


def score(name, *replies):
    return score_replies(replies)[name]


@pytest.mark.parametrize(
    ("reply", "reference", "f1"),
    [
        ("the cat sat", "the cat lay down", 2 * 2 / 7),
        ("the the the", "the cat", 2 * 1 / 5),  # a word counts as often as both have it
        ("The Cat", "the cat", 1.0),
        ("STRASSE", "straße", 1.0),
        ("yes !", "Yes!", 1.0),
        ("no", "yes", 0.0),
        ("", "yes", 0.0),
        ("날씨가 좋네요", "오늘 날씨가 좋네요", 2 * 2 / 5),
        ("今日は雨", "今日は晴", 2 * 3 / 8),
    ],
)
def test_f1_is_that_of_the_words_as_bags(reply, reference, f1):
    assert score("f1", said(reply, reference)) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("reply", "reference", "rouge"),
    [
        # The examples of Lin (2004), section 3.2; recall and precision are equal.
        ("police kill the gunman", "police killed the gunman", 3 / 4),
        ("the gunman kill police", "police killed the gunman", 2 / 4),
        ("the gunman police killed", "police killed the gunman", 2 / 4),
        ("a x b y c", "a b c", 2 * 3 / 8),
        ("c b a", "a b c", 1 / 3),
        ("a a a", "a b a", 2 / 3),
        ("", "a", 0.0),
        ("좋네요 날씨가", "날씨가 좋네요", 1 / 2),
    ],
)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(reply, reference, rouge):
    assert score("rouge-l", said(reply, reference)) == pytest.approx(rouge)


def test_f1_and_rouge_l_are_means_over_replies_not_over_words():
    replies = (said("a b c d e f", "a b c d e f"), said("x", "y"))
    assert score("f1", *replies) == score("rouge-l", *replies) == 0.5


def test_distinct_counts_over_all_replies_together():
    replies = (said("I do not know", "-"), said("i do", "-"), said("Yes", "-"))
    assert score("distinct-1", *replies) == pytest.approx(5 / 7)
    assert score("distinct-2", *replies) == pytest.approx(3 / 4)
    assert score("distinct-2", said("Yes", "-"), said("No", "-")) == 0.0  # there is no pair


def test_length_ratio_is_that_of_all_words():
    assert score("length-ratio", said("a b c", "a"), said("", "a b c d")) == pytest.approx(3 / 5)
    assert score("length-ratio", said("a", "")) == 1.0  # nothing to compare with


def test_stop_rate_is_the_share_of_replies_that_the_model_ended():
    replies = (said("a", "a"), said("a", "a", stopped=False), said("", "a", stopped=False))
    assert score("stop-rate", *replies) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("reply", "share"),
    [
        ("ha ha ha ha ha ha", 2 / 3),  # three sequences of four, one of them is new
        ("a b c d e f", 0.0),
        ("I know. I know. I KNOW.", 1 - 3 / 6),
        ("a a a", 0.0),  # too short for a sequence of four
        ("", 0.0),
    ],
)
def test_repetition_is_the_share_of_sequences_of_four_words_that_were_said_before(reply, share):
    assert score("repetition", said(reply, "-")) == pytest.approx(share)


@pytest.mark.parametrize(
    ("prompt", "reply", "share"),
    [
        ("Where are you from?", "Where are you from?", 1.0),
        ("Where are you from?", "where are you going today?", 2 / 5),
        ("Where are you from?", "I am from Spain.", 0.0),
        ("Pizza or pasta?", "Pasta", 1.0),
        ("Pizza or pasta?", "Salad", 0.0),
        ("no no", "no no no no", 1 / 3),
        ("Hi", "", 0.0),
    ],
)
def test_echo_is_the_share_of_word_pairs_of_the_last_user_turn(prompt, reply, share):
    assert score("echo", said(reply, "-", prompt=prompt)) == pytest.approx(share)


def test_echo_compares_with_the_last_user_turn_also_behind_the_result_of_a_tool():
    history = (("user", "a b"), ("assistant", "c d"), ("user", "e f"), ("tool", "g h"))
    assert score("echo", SampleReply(history, "-", "e f", True)) == 1.0
    assert score("echo", SampleReply(history, "-", "a b", True)) == 0.0


def test_several_references_count_as_the_papers_say():
    one, two = (
        said("the cat sat down", "the cat lay down"),
        said("the cat sat down", "the cat lay down", "it sat down at once there"),
    )
    # BLEU: n-grams of either reference, the length of the closer one (4 words).
    assert score("bleu-1", one) == pytest.approx(100 * 3 / 4)
    assert score("bleu-1", two) == pytest.approx(100.0)
    assert score("bleu-2", two) == pytest.approx(100 * (4 / 4 * 2 / 3) ** 0.5)
    # F1 and ROUGE-L: the better of 6/8 and 4/10.
    assert score("f1", one) == score("f1", two) == pytest.approx(6 / 8)
    assert score("rouge-l", two) == pytest.approx(6 / 8)
    assert score("length-ratio", two) == 1.0
    assert score("length-ratio", said("a b c d e", "a b c d", "a b c d e f g")) == 5 / 4


def test_chrf_takes_the_closest_reference_and_bleu_the_closest_length():
    assert score("chrf", said("sat down", "lay", "sat down")) == pytest.approx(100.0)
    # Both words are in the first reference; the second one is closer in length, and shorter.
    assert score("bleu-1", said("a b", "a b c d e", "x")) == pytest.approx(100.0)
    assert score("bleu-1", said("a b", "a b c d e")) == pytest.approx(100 * math.exp(1 - 5 / 2))


def test_nist_counts_the_ngrams_of_all_references_and_takes_the_best_one():
    """Doddington (2002): the information of a word is log2(words / its occurrences)."""
    assert score("nist-2", said("a b", "a b")) == pytest.approx(1.0)
    of_words = (math.log2(5 / 2) + math.log2(5 / 1)) / 2
    of_pairs = math.log2(2 / 1)  # "a" twice, "a b" once
    assert score("nist-2", said("a b", "a b", "a c d")) == pytest.approx(of_words + of_pairs)


def test_the_values_of_the_real_replies_are_those_of_the_first_reference():
    replies = [
        said("ha ha ha ha ha", "no no no no no", "yes", prompt="no no", stopped=False),
        said("", "a b", prompt="c d"),
    ]
    assert score_real_replies(replies) == {
        "distinct-1": pytest.approx(3 / 7),
        "distinct-2": pytest.approx(2 / 5),
        "length-ratio": 1.0,
        "repetition": pytest.approx(1 / 4),
        "echo": pytest.approx(1 / 8),
    }
    assert score_real_replies([]) == {}


def test_words_keep_every_script():
    assert words("Yes, 50 of 3.5 (or so)!") == (
        "Yes", ",", "50", "of", "3.5", "(", "or", "so", ")", "!",
    )  # fmt: skip
    assert words("오늘 날씨가 좋네요!") == ("오늘", "날씨가", "좋네요", "!")
    assert words("今日はhello です。") == ("今", "日", "は", "hello", "で", "す", "。")
    assert words(" \n ") == ()
