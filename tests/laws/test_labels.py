"""Labels mark exactly the intended tokens: what the trained speakers say, and the token that ends it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.data.store import ASSISTANT_TARGET, NO_TARGET, USER_TARGET
from tests.strategies import dialogues

TEMPLATES = ["turns", "chatml", "convmodel", "cls-sep"]


@pytest.fixture(scope="module")
def encoders(make_encoder):
    return {name: make_encoder(name, max_length=4096) for name in TEMPLATES}


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_targets_are_each_trained_turns_text_and_its_end_token(encoders, name, data):
    encoder = encoders[name]
    dialogue = data.draw(dialogues(system=name in ("turns", "chatml")))
    (example,) = encoder.encode([dialogue])[0]
    assert example.targets[0] == NO_TARGET
    for role, kind in (("assistant", ASSISTANT_TARGET), ("user", USER_TARGET)):
        trained = [turn for turn in dialogue.turns if turn.role == role and turn.is_trained]
        chosen = example.input_ids[example.targets == kind].tolist()
        expected = []
        for turn in trained:
            expected += encoder.tokenizer.encode(turn.text, add_special_tokens=False, split_special_tokens=True)
            expected.append(encoder.stop_ids[0])
        if encoder.template.name == "cls-sep" and dialogue.turns[-1] in trained and dialogue.turns[-1].role == role:
            expected.append(encoder.stop_ids[1])
        assert chosen == expected


@settings(max_examples=60, deadline=None)
@given(dialogue=dialogues())
def test_train_on_last_keeps_only_the_last_assistant_turn(encoders, dialogue):
    encoder = encoders["turns"]
    (example,) = encoder.encode([dialogue], "last")[0]
    spoken = [turn for turn in dialogue.turns if turn.role == "assistant"]
    chosen = example.input_ids[example.targets == ASSISTANT_TARGET].tolist()
    expected = [spoken[-1].text] if spoken and spoken[-1].is_trained else []
    assert [encoder.decode(chosen)] * bool(chosen) == expected
    assert chosen.count(encoder.stop_ids[0]) == len(expected)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_text_that_spells_a_special_token_is_text(encoders, name, data):
    encoder = encoders[name]
    dialogue = data.draw(dialogues(system=name in ("turns", "chatml")))
    (example,) = encoder.encode([dialogue])[0]
    special = {encoder.tokenizer.convert_tokens_to_ids(token) for token in encoder.template.special_tokens}
    pieces = encoder.template.render(dialogue.turns)
    assert sum(int(token) in special for token in example.input_ids) == sum(piece.is_special for piece in pieces)


@settings(max_examples=100, deadline=None)
@given(dialogue=dialogues())
def test_decoding_a_turns_ids_gives_its_text_back(encoders, dialogue):
    encoder = encoders["turns"]
    for turn in dialogue.turns:
        (example,) = encoder.encode([Dialogue((Turn("assistant", turn.text),))])[0]
        assert encoder.decode(example.input_ids[1:-1].tolist()) == turn.text


@settings(max_examples=60, deadline=None)
@given(dialogue=dialogues(), max_length=st.integers(24, 80))
def test_windows_train_every_target_exactly_once_and_carry_the_system_turn(
    make_encoder, encoders, dialogue, max_length
):
    from convo_cli.errors import DataError
    from convo_cli.text.encoder import DialogueEncoder

    whole = encoders["turns"]
    cut = DialogueEncoder(whole.tokenizer, whole.template, max_length=max_length)
    (example,) = whole.encode([dialogue])[0]
    head = dialogue.turns[:1] if dialogue.turns[0].role == "system" else ()
    costs = [_num_tokens(whole, (turn,)) for turn in dialogue.turns[len(head) :]]
    budget = max_length - _num_tokens(whole, head)
    if max(costs) > budget:
        with pytest.raises(DataError, match="line 1: a turn of"):
            cut.encode([dialogue])
        return
    windows = cut.encode([dialogue])[0]
    assert all(len(window.input_ids) <= max_length for window in windows)
    for kind in (ASSISTANT_TARGET, USER_TARGET):
        pieces = [window.input_ids[window.targets == kind] for window in windows]
        assert np.concatenate(pieces).tolist() == example.input_ids[example.targets == kind].tolist()
    start = example.input_ids[: _num_tokens(whole, head)].tolist()
    assert all(window.input_ids[: len(start)].tolist() == start for window in windows)


def _num_tokens(encoder, turns):
    return len(encoder.prompt(turns, max_new_tokens=1).ids) - 1 if turns else 0
