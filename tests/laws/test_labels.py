"""Targets are exactly the text of the trained speakers and the tokens that end it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.data.dialogue import Dialogue, Turn, as_messages
from convo_cli.text.templates.template import TEMPLATES
from convo_cli.tokens.store import ASSISTANT_TARGET, NO_TARGET, USER_TARGET
from tests.cases import num_examples
from tests.families import FAMILIES, family_dialogues, family_tokenizer, native_encoder
from tests.strategies import EMPTY_LOOKING, WITH_SYSTEM, dialogues, texts

MARKED = [name for name, family in FAMILIES.items() if "endgeneration" in family.source]

every_template = pytest.mark.parametrize("name", [*TEMPLATES, *FAMILIES])


@pytest.fixture(scope="module")
def encoders(make_encoder, sample_dialogues):
    made = {name: make_encoder(name, max_length=4096) for name in TEMPLATES}
    return made | {
        name: native_encoder(family_tokenizer(family, sample_dialogues))
        for name, family in FAMILIES.items()
    }


def _dialogues(name, *, look_alikes=True):
    if name in FAMILIES:
        return family_dialogues(FAMILIES[name], look_alikes=look_alikes)
    return dialogues(look_alikes=look_alikes, system=name in WITH_SYSTEM)


def _text_ids(encoder, text):
    return encoder.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=num_examples(60), deadline=None)
@given(data=st.data())
def test_targets_are_each_trained_turns_text_and_its_end_token(encoders, name, data):
    encoder = encoders[name]
    dialogue = data.draw(_dialogues(name))
    (example,) = encoder.encode([dialogue])[0]
    assert example.targets[0] == NO_TARGET
    for role, kind in (("assistant", ASSISTANT_TARGET), ("user", USER_TARGET)):
        trained = [turn for turn in dialogue.turns if turn.role == role and turn.is_trained]
        chosen = example.input_ids[example.targets == kind].tolist()
        expected = []
        for turn in trained:
            expected += [*_text_ids(encoder, turn.text), encoder.stop_ids[0]]
        if (
            encoder.template.name == "cls-sep"
            and dialogue.turns[-1] in trained
            and dialogue.turns[-1].role == role
        ):
            expected.append(encoder.stop_ids[1])
        assert chosen == expected


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=num_examples(25), deadline=None)
@given(data=st.data())
def test_targets_are_what_the_familys_speakers_say(encoders, name, data):
    family, encoder = FAMILIES[name], encoders[name]
    dialogue = data.draw(_dialogues(name, look_alikes=False))
    (example,) = encoder.encode([dialogue])[0]
    for role, kind, says in (
        ("assistant", ASSISTANT_TARGET, family.answer),
        ("user", USER_TARGET, family.question),
    ):
        said = [
            # Where the template puts the system text into the question, the question's own text
            # follows two newlines.
            says.format(turn.text).lstrip(" " if _is_after_merged_system(family, before) else "")
            for before, turn in zip([None, *dialogue.turns], dialogue.turns, strict=False)
            if turn.role == role and turn.is_trained
        ]
        expected = [
            token
            for text in said
            for token in encoder.tokenizer.encode(text, add_special_tokens=False)
        ]
        assert example.input_ids[example.targets == kind].tolist() == expected


def _is_after_merged_system(family, before):
    return (
        family.template in ("mistral", "llama2") and before is not None and before.role == "system"
    )


@every_template
@settings(max_examples=num_examples(25), deadline=None)
@given(data=st.data())
def test_the_end_token_of_every_trained_reply_is_a_target_and_of_no_other(encoders, name, data):
    encoder = encoders[name]
    dialogue = data.draw(_dialogues(name))
    (example,) = encoder.encode([dialogue])[0]
    ends = example.targets[example.input_ids == encoder.stop_ids[0]].tolist()
    trained = [turn for turn in dialogue.turns if turn.role == "assistant" and turn.is_trained]
    assert ends.count(ASSISTANT_TARGET) == len(trained)
    # Each alone, so that a surplus end cannot make up for a missing one.
    for turn in trained:
        (alone,) = encoder.encode([Dialogue((Turn("user", "Hi"), turn))])[0]
        ends = alone.targets[alone.input_ids == encoder.stop_ids[0]].tolist()
        assert ends.count(ASSISTANT_TARGET) == 1


@pytest.mark.parametrize("name", MARKED)
@settings(max_examples=num_examples(25), deadline=None)
@given(data=st.data())
def test_generation_marks_give_the_targets_that_transformers_gives(encoders, name, data):
    encoder = encoders[name]
    turns = tuple(
        Turn(turn.role, turn.text) for turn in data.draw(_dialogues(name, look_alikes=False)).turns
    )
    (example,) = encoder.encode([Dialogue(turns)])[0]
    theirs = encoder.tokenizer.apply_chat_template(
        as_messages(turns),
        chat_template=encoder.template.chat_template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert example.input_ids.tolist() == theirs["input_ids"]
    assert (example.targets == ASSISTANT_TARGET).tolist() == list(
        map(bool, theirs["assistant_masks"])
    )


@every_template
@settings(max_examples=num_examples(25), deadline=None)
@given(data=st.data())
def test_train_on_last_keeps_only_the_last_assistant_turn(encoders, name, data):
    encoder = encoders[name]
    dialogue = data.draw(_dialogues(name))
    spoken = [index for index, turn in enumerate(dialogue.turns) if turn.role == "assistant"]
    only_last = tuple(
        Turn(
            turn.role,
            turn.text,
            turn.is_trained and (turn.role != "assistant" or index == spoken[-1]),
        )
        for index, turn in enumerate(dialogue.turns)
    )
    (last,) = encoder.encode([dialogue], "last")[0]
    (expected,) = encoder.encode([Dialogue(only_last)], "assistant")[0]
    assert last.targets.tolist() == expected.targets.tolist()
    assert last.input_ids.tolist() == expected.input_ids.tolist()


@every_template
@settings(max_examples=num_examples(25), deadline=None)
@given(data=st.data())
def test_text_that_spells_a_special_token_is_text(encoders, name, data):
    encoder = encoders[name]
    dialogue = data.draw(_dialogues(name))
    (example,) = encoder.encode([dialogue])[0]
    pieces = encoder.template.render(dialogue.turns)
    assert sum(encoder.is_special(int(token)) for token in example.input_ids) == sum(
        p.is_special for p in pieces
    )


@every_template
def test_a_user_who_types_the_tokens_of_the_template_types_text(encoders, name):
    """The look-alikes that the parity check leaves out, one by one: none is ever the token."""
    encoder = encoders[name]
    tokens = sorted(
        {piece.text for piece in encoder.template.render([Turn("user", "a")]) if piece.is_special}
    )
    tokens += [*encoder.template.special_tokens, *encoder.template.stop_tokens]
    plain = (Turn("user", "a"), Turn("assistant", "b"))
    (without,) = encoder.encode([Dialogue(plain)])[0]
    num_special = sum(encoder.is_special(int(token)) for token in without.input_ids)
    for token in tokens:
        for typed in (token, f"a{token}", f"{token} b", token * 2):
            turns = (Turn("user", typed), Turn("assistant", typed))
            (example,) = encoder.encode([Dialogue(turns)])[0]
            assert sum(encoder.is_special(int(token)) for token in example.input_ids) == num_special
            spoken = example.input_ids[example.targets == ASSISTANT_TARGET].tolist()
            assert typed in encoder.decode(spoken)


@every_template
@settings(max_examples=num_examples(60), deadline=None)
@given(text=texts())
def test_the_targets_of_a_reply_decode_to_its_text(encoders, name, text):
    encoder = encoders[name]
    (example,) = encoder.encode([Dialogue((Turn("user", "Hi"), Turn("assistant", text)))])[0]
    spoken = encoder.decode(example.input_ids[example.targets == ASSISTANT_TARGET].tolist())
    # With the special tokens that decoding leaves out.
    around = FAMILIES[name].answer if name in FAMILIES else "{}"
    around = encoder.decode(encoder.tokenizer.encode(around, add_special_tokens=False))
    assert spoken == around.replace("{}", text)


@every_template
@pytest.mark.parametrize("text", EMPTY_LOOKING)
def test_a_text_that_shows_nothing_is_a_target_like_any_other(encoders, name, text):
    encoder = encoders[name]
    turns = (Turn("user", text), Turn("assistant", text))
    encoder.require_parity(turns)
    (example,) = encoder.encode([Dialogue(turns)])[0]
    targets = example.input_ids[example.targets == ASSISTANT_TARGET].tolist()
    assert encoder.stop_ids[0] in targets
    assert text in encoder.decode(targets)
