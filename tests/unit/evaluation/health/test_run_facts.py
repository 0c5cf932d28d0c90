"""Facts that evaluations are compared with: token frequencies, copies, openings and floors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.data.held_out.training_facts import TrainingFacts, collect_facts
from convo_cli.evaluation.health import token_frequencies
from convo_cli.evaluation.health.run_facts import RunFacts
from convo_cli.evaluation.health.token_frequencies import frequency_loss
from convo_cli.evaluation.health.training_curve import TrainingCurve
from convo_cli.metrics.floors import FLOORS
from convo_cli.tokens.store import Example
from tests.run_events import evaluation, sample
from tests.stores import laid_out


def store(ids, targets):
    return laid_out([Example(np.array(ids, np.int32), np.array(targets, np.uint8))])


def test_the_loss_of_guessing_counts_each_id_once_more():
    training = store([0, 1, 1, 2, 3], [0, 1, 1, 1, 2])
    scored = store([0, 1, 3], [0, 1, 1])
    expected = -(math.log(3 / 7) + math.log(1 / 7)) / 2
    assert frequency_loss(training, scored, (1,), 4) == pytest.approx(expected)
    assert frequency_loss(training, store([0, 1], [0, 2]), (1,), 4) is None


def test_the_frequencies_of_a_large_store_are_those_of_all_of_its_files(monkeypatch):
    """Its first tokens are those of its first file."""
    scored = store([0, 1, 2], [0, 1, 1])
    small, large = (
        store([0] + [1] * size + [2] * size, [0] + [1] * 2 * size) for size in (50, 5000)
    )
    expected = frequency_loss(small, scored, (1,), 3)
    monkeypatch.setattr(token_frequencies, "_MAX_TOKENS", 640)
    assert frequency_loss(small, scored, (1,), 3) == expected
    assert frequency_loss(large, scored, (1,), 3) == pytest.approx(expected, rel=0.02)


def dialogue(*turns):
    return Dialogue(tuple(Turn(role, text) for role, text in turns))


def test_copies_and_openings_are_counted_in_one_pass():
    dialogues = (
        dialogue(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hi ")),
        dialogue(("assistant", "Hello"), ("user", "Bye"), ("assistant", "Goodbye")),
        dialogue(("user", "One"), ("user", "Two"), ("assistant", "Two"), ("assistant", "Two")),
    )
    facts = collect_facts(iter(dialogues), "the data")
    assert (facts.num_dialogues, facts.num_opened_by_assistant) == (3, 1)
    assert facts.share_opened_by_assistant == pytest.approx(1 / 3)
    assert (facts.num_replies, facts.num_copies) == (3, 2)
    assert facts.share_of_copies == pytest.approx(2 / 3)
    assert facts.replies is not None
    assert (facts.replies.most_frequent, facts.replies.source) == ("Two", "the data")
    nothing = collect_facts([], "the data")
    assert (nothing, nothing.share_of_copies) == (TrainingFacts(), 0.0)


def test_floors_are_those_of_the_same_turns_at_every_step():
    replies = collect_facts([dialogue(("user", "Ha"), ("assistant", "Oh"))] * 3, "the data")
    empty = store([0, 1], [0, 1])
    facts = RunFacts(empty, empty, (1,), 4, replies, (), {0: evaluation(0)}, TrainingCurve())
    floors = facts.floors([sample("a"), sample("b")])
    assert floors.keys() == FLOORS.keys()
    assert floors == facts.floors([sample("c"), sample("d")])
    assert floors["constant"]["distinct-1"] == 0.5
    assert facts.floors([]) == {}
    assert facts.so_far(7).start == evaluation(0)
