"""The chat template and tokenizer of a real model, SmolLM2-135M-Instruct, on the sample dialogues.

`CONVO_SMOLLM2` names a folder that benchmarks/convert_smollm2.py made; without it these tests are
skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.data.dialogue import Dialogue, Turn, as_messages
from convo_cli.text.contract import load_encoder, save_encoder
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import make_template
from convo_cli.text.tokenizers.pretrained import load_pretrained_tokenizer
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET
from tests.cases import num_examples
from tests.strategies import dialogues

FOLDER = os.environ.get("CONVO_SMOLLM2", "")

pytestmark = pytest.mark.skipif(
    not Path(FOLDER, "tokenizer.json").is_file(),
    reason="CONVO_SMOLLM2 names no folder made by benchmarks/convert_smollm2.py",
)


@pytest.fixture(scope="module")
def encoder():
    tokenizer = load_pretrained_tokenizer(FOLDER)
    template = make_template("auto", tokenizer)
    assert template.name == "native"
    return DialogueEncoder(tokenizer, template, max_length=8192)


@pytest.fixture(scope="module")
def plain(encoder, tmp_path_factory):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("export")
    save_encoder(encoder, folder, spiece=None)
    assert load_encoder(folder).stop_ids == encoder.stop_ids
    return AutoTokenizer.from_pretrained(folder)


def _check(encoder, plain, dialogue):
    """Ids, targets, end tokens and prompts of one dialogue."""
    (example,) = encoder.encode([dialogue])[0]
    ids = example.input_ids.tolist()
    if not any(token in turn.text for turn in dialogue.turns for token in plain.all_special_tokens):
        assert ids == plain.apply_chat_template(as_messages(dialogue.turns), return_dict=False)
    for role, kind in (("assistant", ASSISTANT_TARGET), ("user", USER_TARGET)):
        targets = []
        for turn in dialogue.turns:
            if turn.role == role and turn.is_trained:
                targets += plain.encode(
                    turn.text, add_special_tokens=False, split_special_tokens=True
                )
                targets.append(plain.convert_tokens_to_ids("<|im_end|>"))
        assert example.input_ids[example.targets == kind].tolist() == targets
    for index, turn in enumerate(dialogue.turns):
        if turn.role == "assistant" and any(
            earlier.role == "user" for earlier in dialogue.turns[:index]
        ):
            prompt = encoder.prompt(dialogue.turns[:index], max_new_tokens=1).ids
            assert ids[: len(prompt)] == prompt
            assert (example.targets[len(prompt)] == ASSISTANT_TARGET) == turn.is_trained


def test_the_sample_dialogues_are_trained_as_transformers_renders_them(
    encoder, plain, sample_dialogues
):
    for dialogue in sample_dialogues:
        _check(encoder, plain, dialogue)
        encoder.require_parity(dialogue.turns)


@settings(max_examples=num_examples(100), deadline=None)
@given(dialogue=dialogues())
def test_so_is_any_other_dialogue(encoder, plain, dialogue):
    _check(encoder, plain, dialogue)


def test_a_dialogue_without_a_system_turn_gets_the_models_own(encoder):
    prompt = encoder.prompt([Turn("user", "Hi")], max_new_tokens=1).ids
    assert encoder.tokenizer.decode(prompt).startswith(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM"
    )


def test_a_reply_ends_at_the_token_that_every_trained_turn_ends_with(encoder):
    assert encoder.template.stop_tokens == ("<|im_end|>",)
    (example,) = encoder.encode([Dialogue((Turn("user", "Hi"), Turn("assistant", "Hello")))])[0]
    end = example.input_ids.tolist().index(
        encoder.stop_ids[0], example.targets.tolist().index(ASSISTANT_TARGET)
    )
    assert example.targets[end] == ASSISTANT_TARGET


@settings(max_examples=num_examples(300), deadline=None)
@given(data=st.data())
def test_any_ids_stream_to_what_they_decode_to(encoder, data):
    ids = data.draw(st.lists(st.integers(0, len(encoder.tokenizer) - 1), max_size=60))
    decoder = encoder.stream()
    assert "".join([*map(decoder.push, ids), decoder.finish()]) == encoder.decode(ids)
