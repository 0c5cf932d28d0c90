"""Probes: what a model makes of the history and of the user's words, on models that show it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from convo_cli.config.schema import ScratchConfig
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.evaluation.health.reply_probes import _MAX_REPLIES, _forms, probe
from convo_cli.model.batches.batching import Batching
from convo_cli.model.create import build_scratch_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder()


@pytest.fixture(scope="module")
def model(encoder):
    return build_scratch_model(ScratchConfig(layers=1, width=16, heads=2, context=128), encoder, 0)


@pytest.fixture
def probed(encoder, model):
    def run(dialogues, model=model):
        batching = Batching(False, True, encoder.pad_id)
        return probe(model, encoder, batching, dialogues, CPU, nullcontext, max_slots=2048)

    return run


def said(*texts):
    return Dialogue(
        tuple(Turn("assistant" if k % 2 else "user", text) for k, text in enumerate(texts))
    )


def texts_of(turns):
    return [turn.text for turn in turns]


def test_each_reply_gets_the_turns_of_another_dialogue_that_came_as_far():
    forms = list(_forms([said("a", "b", "c", "d"), said("e", "f"), said("g", "h", "i", "j")]))
    assert [[texts_of(turns) for turns in form] for form in forms] == [
        [["a", "b"], ["e", "b"], ["a", "a"]],
        [["e", "f"], ["g", "f"], ["e", "e"]],
        [["g", "h"], ["a", "b", "c", "h"], ["g", "g"]],
        [["a", "b", "c", "d"], ["g", "h", "i", "d"], ["a", "b", "c", "c"]],
        [["g", "h", "i", "j"], ["a", "b", "c", "j"], ["g", "h", "i", "i"]],
    ]


def test_only_trained_replies_to_a_user_are_compared():
    untrained = Dialogue((Turn("user", "a"), Turn("assistant", "b", is_trained=False)))
    opening = Dialogue((Turn("assistant", "a"), Turn("user", "b")))
    call = Dialogue(
        (Turn("user", "a"), Turn("assistant", "", tool_data="{}"), Turn("tool", "c")),
    )
    assert list(_forms([untrained, opening, call, said("x", "y")])) == []


def test_the_number_of_replies_is_bounded():
    many = [said(*"abcdef") for _ in range(80)]
    assert len(list(_forms(many))) == _MAX_REPLIES


def test_fewer_than_two_replies_are_not_compared(probed):
    assert probed([]) is None
    assert probed([said("Hi", "Hello")]) is None


def test_an_untrained_model_gains_nothing(probed, sample_dialogues):
    found = probed(sample_dialogues[:20])
    assert found.num_replies > 20
    assert abs(found.history_gain) < 0.05
    assert abs(found.echo_gain) < 0.3
    assert 0 < found.history_error < 0.05
    assert found.own_nll == pytest.approx(6.8, abs=0.3)  # ln of the vocabulary


def test_replies_that_do_not_fit_the_window_are_left_out(probed):
    long = said("very " * 300, "Yes.")
    assert probed([long, said("Hi", "Hello"), said("Bye", "Goodbye")]).num_replies == 2


def test_a_model_that_answers_each_opening_gains_from_it(probed, encoder, make_encoder):
    """Trained until it knows which of two replies belongs to which turn."""
    from tests.stores import encoded

    pairs = [said("Hello", "My name is Anna."), said("Goodbye", "See you tomorrow!")]
    size = ScratchConfig(layers=1, width=32, heads=2, context=128, dropout=0.0)
    model = build_scratch_model(size, encoder, 0).train()
    batching, store = Batching(False, True, encoder.pad_id), encoded(encoder, pairs)
    batch = batching.batch([store[0], store[1]], (1,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        (batching.nll_sum(model, batch) / batch.num_targets).backward()
        optimizer.step()
    found = probed(pairs, model)
    assert found.history_gain > 1.0
    assert found.echo_gain < -1.0
