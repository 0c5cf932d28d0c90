"""Training, chat and the exported folder opened by plain transformers see the same ids for the same dialogue."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.data.dialogue import as_messages
from convo_cli.text.contract import load_encoder, save_encoder
from tests.strategies import dialogues

TEMPLATES = ["turns", "chatml", "convmodel", "cls-sep"]


@pytest.fixture(scope="module")
def folders(make_encoder, tmp_path_factory):
    """Each template's encoder, its reload, and the plain transformers tokenizer of the folder it was saved to."""
    from transformers import AutoTokenizer

    made = {}
    for name in TEMPLATES:
        folder = tmp_path_factory.mktemp(name)
        encoder = make_encoder(name, max_length=4096)
        save_encoder(encoder, folder, spiece=None)
        made[name] = (encoder, load_encoder(folder), AutoTokenizer.from_pretrained(folder))
    return made


def _draw(data, name, **kwargs):
    return data.draw(dialogues(system=name in ("turns", "chatml"), **kwargs))


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_prompt_of_every_reply_is_how_its_training_example_begins(folders, name, data):
    encoder, reloaded, _ = folders[name]
    dialogue = _draw(data, name)
    (example,) = encoder.encode([dialogue])[0]
    for index, turn in enumerate(dialogue.turns):
        if turn.role == "assistant" and index > 0:
            prompt = reloaded.prompt(dialogue.turns[:index], max_new_tokens=1)
            assert prompt.num_dropped == 0
            assert example.input_ids[: len(prompt.ids)].tolist() == prompt.ids


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_plain_transformers_renders_the_training_ids(folders, name, data):
    encoder, _, plain = folders[name]
    dialogue = _draw(data, name, look_alikes=False)
    (example,) = encoder.encode([dialogue])[0]
    ids = plain.apply_chat_template(as_messages(dialogue.turns), tokenize=True, return_dict=False)
    assert ids == example.input_ids.tolist()
    prompt = plain.apply_chat_template(
        as_messages(dialogue.turns), tokenize=True, return_dict=False, add_generation_prompt=True
    )
    assert prompt == encoder.prompt(dialogue.turns, max_new_tokens=1).ids


@pytest.mark.parametrize("name", ["turns", "chatml"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_native_template_of_an_export_gives_the_ids_and_targets_it_was_made_from(folders, name, data):
    from convo_cli.text.encoder import DialogueEncoder
    from convo_cli.text.template import make_template

    encoder, _, plain = folders[name]
    native = DialogueEncoder(plain, make_template("native", plain), max_length=4096)
    dialogue = _draw(data, name)
    (ours,), (theirs,) = encoder.encode([dialogue])[0], native.encode([dialogue])[0]
    assert ours.input_ids.tolist() == theirs.input_ids.tolist()
    assert ours.targets.tolist() == theirs.targets.tolist()
    assert set(native.stop_ids) >= set(encoder.stop_ids)


def test_a_template_that_fits_the_tokenizer_passes_the_parity_check(folders, sample_dialogues):
    for name in ("turns", "chatml"):
        for dialogue in sample_dialogues[:20]:
            folders[name][0].require_parity(dialogue.turns)
