"""Which dialogues get a reply, what the model is told before it, and the scores, against numbers worked out by hand."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.config.schema import GenerationSettings, MetricName
from convo_cli.data.dialogue import Dialogue, Role, Turn
from convo_cli.errors import DataError
from convo_cli.evaluation.replies import choose_dialogues, reply_to_all, score_replies
from convo_cli.events import SampleReply
from convo_cli.model.generation import Reply


def said(*pairs):
    """Replies beside what was really said."""
    return [SampleReply((), reference, reply, True) for reply, reference in pairs]


def talk(*texts, line=0):
    roles: tuple[Role, Role] = ("user", "assistant")
    return Dialogue(tuple(Turn(roles[index % 2], text) for index, text in enumerate(texts)), line)


# Scores


def test_bleu_and_nist_of_one_reply_are_those_of_the_papers():
    scores = score_replies(said(("the cat sat on mat", "the cat sat on the mat")))
    brevity = math.exp(1 - 6 / 5)
    assert scores["bleu-2"] == pytest.approx(100 * brevity * (5 / 5 * 3 / 4) ** (1 / 2))
    assert scores["bleu-4"] == pytest.approx(100 * brevity * (5 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4))
    # Information: of a word log2(6 / its count), of "the cat" log2(2 / 1), of the other word pairs log2(1 / 1).
    information = (math.log2(6 / 2) + 4 * math.log2(6)) / 5 + (1 + 0 + 0) / 4
    penalty = math.exp(math.log(0.5) / math.log(1.5) ** 2 * math.log(5 / 6) ** 2)
    assert scores["nist-2"] == pytest.approx(information * penalty)
    assert scores["nist-4"] == pytest.approx(information * penalty), "longer matches were certain: no information"


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
    assert score_replies(said(("今日は雨", "今日は晴")))["bleu-2"] == pytest.approx(100 * math.sqrt(3 / 4 * 2 / 3))
    assert score_replies(said(("yes!", "yes !")))["bleu-2"] == pytest.approx(100)


@pytest.mark.parametrize(
    "pairs",
    [
        [("", "hello there")], [("", "")], [("hello", "")], [("hello", "hello")], [("x", "hello there"), ("", "you")],
        [("    ", "\n")], [("x y", "a b c")],
    ],
)  # fmt: skip
def test_empty_and_one_word_replies_have_finite_scores(pairs):
    scores = score_replies(said(*pairs))
    assert tuple(scores) == get_args(MetricName)
    assert all(math.isfinite(score) and 0 <= score <= 100 for score in scores.values())


def test_one_right_word_has_a_nist_and_silence_has_none():
    assert score_replies(said(("hello", "hello you")))["nist-2"] > 0
    assert score_replies(said(("", "hello you")))["nist-2"] == 0


def test_no_replies_have_no_scores():
    assert score_replies([]) == {}


TEXTS = st.text(st.sampled_from("ab yz.!今は안 \n"), max_size=12)


@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_any_replies_have_finite_scores_and_none_beats_the_reference_itself(pairs):
    scores = score_replies(said(*pairs))
    best = score_replies(said(*((reference, reference) for _, reference in pairs)))
    assert all(math.isfinite(score) for score in scores.values())
    assert 0 <= scores["bleu-2"] <= 100 + 1e-9
    assert scores["nist-2"] >= 0
    assert scores["bleu-4"] <= best["bleu-4"] + 1e-9 or best["bleu-4"] == 0


# The choice of dialogues


def test_the_choice_is_the_same_every_time_in_order_and_another_for_another_seed():
    dialogues = [talk("q", f"a{number}", line=number) for number in range(200)]
    chosen = choose_dialogues(iter(dialogues), 10, seed=3)
    assert chosen == choose_dialogues(iter(dialogues), 10, seed=3)
    assert [dialogue.line for dialogue in chosen] == sorted({dialogue.line for dialogue in chosen})
    assert len(chosen) == 10
    assert chosen != choose_dialogues(iter(dialogues), 10, seed=4)


@pytest.mark.parametrize(("available", "count", "expected"), [(3, 10, 3), (10, 3, 3), (5, 0, 0), (0, 5, 0)])
def test_no_more_than_asked_for_and_all_where_there_are_fewer(available, count, expected):
    assert len(choose_dialogues((talk("q", "a") for _ in range(available)), count, seed=0)) == expected


def test_every_dialogue_is_as_likely_as_any_other():
    dialogues = [talk("q", "a", line=number) for number in range(20)]
    counts = Counter(d.line for seed in range(600) for d in choose_dialogues(dialogues, 5, seed))
    assert set(counts) == set(range(20))
    assert max(abs(count - 150) for count in counts.values()) < 50  # 150 is expected, 10.6 the deviation


def test_the_choice_holds_no_more_than_it_chose_in_memory():
    tracemalloc.start()
    try:
        chosen = choose_dialogues((talk("q" * 50_000, f"a{n}") for n in range(1000)), 4, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(chosen) == 4
    assert peak < 1_000_000  # the whole would be 50 MB


@pytest.mark.parametrize(
    "turns",
    [
        (), (Turn("user", "q"),), (Turn("assistant", "a"),), (Turn("assistant", "a"), Turn("user", "q")),
        (Turn("system", "s"), Turn("assistant", "a")), (Turn("user", "q"), Turn("user", "q")),
    ],
)  # fmt: skip
def test_a_dialogue_in_which_nothing_is_answered_is_not_chosen(turns):
    assert choose_dialogues([Dialogue(turns), talk("q", "a")], 5, seed=0) == [talk("q", "a")]


def test_a_turn_that_the_data_excludes_is_no_reference():
    excluded = Dialogue((Turn("user", "q"), Turn("assistant", "rude", is_trained=False)))
    earlier = Dialogue((*talk("q", "a", "r").turns, Turn("assistant", "rude", is_trained=False)))
    assert choose_dialogues([excluded, earlier], 5, seed=0) == [earlier]
    parrot: Any = Parrot()
    (reply,) = reply_to_all(parrot, [earlier], GenerationSettings())
    assert reply.reference == "a"


# Replying


class Parrot:
    """Answers with the last words it was told, and remembers all of them and its settings."""

    def __init__(self):
        self.calls = []

    def reply(self, history, settings):
        self.calls.append((tuple(history), settings))
        if history[-1].text == "too long":
            raise DataError("the last message is 99 tokens")
        return Reply(history[-1].text, (1,), history[-1].text != "cut", 0)


def test_the_last_answer_of_each_dialogue_is_asked_for_given_all_that_was_said_before():
    parrot: Any = Parrot()
    done: list[int] = []
    dialogues = [
        talk("q1", "a1", "q2", "a2", "thanks"),
        Dialogue((Turn("system", "s"), Turn("user", "cut"), Turn("assistant", "a"))),
    ]
    replies = reply_to_all(parrot, dialogues, GenerationSettings(temperature=1.5, top_k=7), done.append)
    assert replies == [
        SampleReply((("user", "q1"), ("assistant", "a1"), ("user", "q2")), "a2", "q2", True),
        SampleReply((("system", "s"), ("user", "cut")), "a", "cut", False),
    ]
    assert [settings for _, settings in parrot.calls] == [GenerationSettings(temperature=0.0, top_k=7)] * 2
    assert done == [1, 2]


def test_a_message_that_does_not_fit_is_left_out_and_the_progress_goes_on():
    done = []
    parrot: Any = Parrot()
    replies = reply_to_all(parrot, [talk("too long", "a"), talk("q", "a")], GenerationSettings(), done.append)
    assert [reply.reply for reply in replies] == ["q"]
    assert done == [1, 2]
