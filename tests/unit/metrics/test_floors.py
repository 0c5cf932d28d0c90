"""Floors: trivial replies, never from the same dialogue, the same for the same seed."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.events import SampleReply
from convo_cli.metrics.floors import (
    FLOORS,
    TrainingReplies,
    describe_floors,
    floor_replies,
    training_replies,
)
from convo_cli.metrics.metric_table import METRICS
from convo_cli.metrics.reply_texts import Additive, ReplyTexts
from tests.cases import num_examples
from tests.conftest import corpus

SOURCE = "the run's training data"


def dialogue(*texts):
    return [(("user", "assistant")[place % 2], text) for place, text in enumerate(texts)]


def replies_of(dialogues):
    return [
        SampleReply(tuple(turns[:place]), turns[place][1], "by a model", False)
        for turns in dialogues
        for place in range(1, len(turns), 2)
    ]


TRAINING = [
    dialogue("How are you?", "Fine.", "Good!", "Thank you."),
    dialogue("Here you are.", "Thank you."),
    dialogue("Bye", "Bye"),
]


def test_the_floors_answer_the_same_turns():
    replies = replies_of([dialogue("Tea?", "Yes.", "Milk?", "No.")])
    floors = floor_replies(replies, training_replies(TRAINING, SOURCE))
    assert list(floors) == list(FLOORS)
    for name, answered in floors.items():
        assert [(one.history, one.reference) for one in answered] == [
            (one.history, one.reference) for one in replies
        ], name
        assert all(one.stopped for one in answered)
    assert [one.reply for one in floors["constant"]] == ["Thank you.", "Thank you."]
    assert [one.reply for one in floors["echo"]] == ["Tea?", "Milk?"]
    assert {one.reply for one in floors["random"]} <= {"Fine.", "Thank you.", "Bye"}


def test_the_training_replies_are_those_of_the_assistant_to_someone():
    found = training_replies(
        [
            [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("tool", "{}")],
            [("assistant", "Welcome!"), ("user", "Thanks"), ("assistant", " ")],
        ],
        SOURCE,
    )
    assert found is not None
    assert (found.sample, found.most_frequent, found.source) == (("Hello",), "Hello", SOURCE)
    assert training_replies([dialogue("Only a question?")], SOURCE) is None


def test_without_training_replies_only_the_echo_is_left():
    assert list(floor_replies(replies_of(TRAINING), None)) == ["echo"]


def test_the_seed_chooses_the_random_replies():
    replies = replies_of([dialogue(f"question {k}", f"answer {k}") for k in range(30)])
    training = training_replies([dialogue(f"q {k}", f"a {k}") for k in range(30)], SOURCE)

    def drawn(seed):
        return [one.reply for one in floor_replies(replies, training, seed=seed)["random"]]

    assert drawn(0) == drawn(0) != drawn(1)
    assert drawn(0)[:10] == [one.reply for one in floor_replies(replies[:10], training)["random"]]


DIALOGUES = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(1, 3)), min_size=1, max_size=8
).map(
    lambda shapes: [
        dialogue(opening, *(f"{opening}{number}-{k}" for k in range(2 * turns - 1)))
        for number, (opening, turns) in enumerate(shapes)
    ]
)


@settings(max_examples=num_examples(100), deadline=None)
@given(dialogues=DIALOGUES, seed=st.integers(0, 5))
def test_a_random_reply_is_never_from_a_dialogue_with_the_same_opening(dialogues, seed):
    """Also if the evaluated file itself is the source."""
    replies = replies_of(dialogues)
    training = training_replies(dialogues, "the evaluated file")
    floors = floor_replies(replies, training, seed=seed)
    if "random" not in floors:
        assert len({turns[0][1] for turns in dialogues}) == 1
        return
    for one in floors["random"]:
        assert not one.reply.startswith(one.history[0][1])


@settings(max_examples=num_examples(50), deadline=None)
@given(dialogues=DIALOGUES)
def test_the_constant_of_an_evaluated_file_is_never_a_reply_of_the_same_dialogue_alone(dialogues):
    replies = replies_of(dialogues)
    floors = floor_replies(replies, training_replies(dialogues, "the evaluated file"))
    for one in floors.get("constant", []):
        assert not one.reply.startswith(one.history[0][1])


def test_a_reply_that_other_dialogues_have_too_is_a_constant_for_all():
    dialogues = [dialogue(f"question {k}", "Yes.", "Why?", f"because {k}") for k in range(5)]
    floors = floor_replies(replies_of(dialogues), training_replies(dialogues, "the file"))
    assert {one.reply for one in floors["constant"]} == {"Yes."}


def test_long_data_is_sampled_evenly_and_counted_whole():
    common = [dialogue(f"q {k}", "Yes." if k % 100 == 7 else f"a {k}") for k in range(40_000)]
    found = training_replies(common, SOURCE)
    assert found is not None
    assert found.most_frequent == "Yes."
    assert len(found.sample) == len(found.openings) == 10_000
    counts = Counter(int(text[2:]) // 10_000 for text in found.sample if text != "Yes.")
    assert all(2_200 < counts[quarter] < 2_750 for quarter in range(4))


def test_replies_given_without_their_dialogues_are_used_for_all_turns():
    training = TrainingReplies("Yes.", ("Yes.", "No."), SOURCE)
    floors = floor_replies(replies_of(TRAINING), training)
    assert list(floors) == list(FLOORS)


FLOOR_INTERVALS = {
    "constant": {"f1": (0.10, 0.20), "bleu-4": (0.0, 0.5), "repetition": (0.0, 0.0)},
    "echo": {"f1": (0.15, 0.19), "bleu-4": (1.0, 2.0), "stop-rate": (1.0, 1.0)},
}


CONSTANT, COPY = "the most frequent reply", "a copy of the last user turn"


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        ({"f1": 0.21, "bleu-4": 2.5, "repetition": 0.1}, None),
        (
            {"f1": 0.18, "bleu-4": 0.7, "stop-rate": 0.5},
            f"f1 is no better than {CONSTANT}; f1, bleu-4 are no better than {COPY}",
        ),
        (
            {"f1": 0.1, "bleu-4": 0.2, "chrf": 9.0},
            f"f1, bleu-4 are no better than {CONSTANT} or {COPY}",
        ),
        ({"f1": 0.9, "bleu-4": 1.5, "nist-4": 0.0}, f"bleu-4 is no better than {COPY}"),
    ],
)
def test_a_sentence_names_the_scores_that_are_not_above_a_floor(scores, sentence):
    found = describe_floors(scores, FLOOR_INTERVALS, SOURCE)
    expected = sentence or "all similarity scores are better than the floors"
    assert found == f"{expected} (replies from {SOURCE})"


def test_without_training_replies_the_sentence_names_no_source():
    found = describe_floors({"f1": 0.0}, {"echo": {"f1": (0.1, 0.2)}}, "")
    assert found == "f1 is no better than a copy of the last user turn"


def test_without_scores_or_floors_there_is_no_sentence():
    assert describe_floors({}, FLOOR_INTERVALS, SOURCE) == ""
    assert describe_floors({"f1": 0.2, "echo": 0.1}, {}, SOURCE) == ""


def lowered(replies):
    return [SampleReply((), one.reference.lower(), one.reply.lower(), True) for one in replies]


def value(name, replies):
    metric = METRICS[name].measure(ReplyTexts(replies))
    assert isinstance(metric, Additive)
    return metric.value


def test_the_floors_of_dailydialog_are_those_of_the_page():
    folder = corpus("dailydialog")
    test, train = (
        [
            dialogue(*json.loads(line))
            for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for name in ("test_noleak", "train")
    )
    replies = replies_of(test)
    floors = floor_replies(replies, training_replies(train, SOURCE))
    assert len(replies) == 3167
    assert value("f1", floors["echo"]) == pytest.approx(0.173, abs=1e-3)
    assert value("f1", floors["constant"]) == pytest.approx(0.163, abs=1e-3)
    in_lower_case = {name: lowered(answered) for name, answered in floors.items()}
    assert value("bleu-4", in_lower_case["echo"]) == pytest.approx(1.98, abs=5e-3)
    assert value("chrf", in_lower_case["echo"]) == pytest.approx(15.2, abs=5e-2)
    assert value("bleu-4", in_lower_case["random"]) == pytest.approx(0.50, abs=0.15)
