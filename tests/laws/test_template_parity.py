"""Training, chat and plain transformers on the export give the same ids for a dialogue.

For convo's own templates and for the chat templates of the model families.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.data.dialogue import Dialogue, as_messages
from convo_cli.text.contract import load_encoder, save_encoder
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import TEMPLATES
from tests.cases import num_examples
from tests.families import FAMILIES, family_dialogues, family_tokenizer, native_encoder
from tests.strategies import WITH_SYSTEM, dialogues

every_template = pytest.mark.parametrize("name", [*TEMPLATES, *FAMILIES])


@dataclass(frozen=True)
class Folder:
    """An encoder, the encoder of the folder it was saved to, and plain transformers' tokenizer."""

    encoder: DialogueEncoder
    reloaded: DialogueEncoder
    plain: Any


@pytest.fixture(scope="module")
def folders(make_encoder, sample_dialogues, tmp_path_factory):
    from transformers import AutoTokenizer

    made: dict[str, DialogueEncoder] = {
        name: make_encoder(name, max_length=4096) for name in TEMPLATES
    }
    made |= {
        name: native_encoder(family_tokenizer(family, sample_dialogues))
        for name, family in FAMILIES.items()
    }
    folders = {}
    for number, (name, encoder) in enumerate(made.items()):
        folder = tmp_path_factory.mktemp(str(number))
        save_encoder(encoder, folder, spiece=None)
        folders[name] = Folder(encoder, load_encoder(folder), AutoTokenizer.from_pretrained(folder))
    return folders


def _dialogues(name, *, look_alikes=False):
    if name in FAMILIES:
        return family_dialogues(FAMILIES[name], look_alikes=look_alikes)
    return dialogues(look_alikes=look_alikes, system=name in WITH_SYSTEM)


def _theirs(plain, turns, *, prompt=False):
    return plain.apply_chat_template(
        as_messages(turns), return_dict=False, add_generation_prompt=prompt
    )


@every_template
@settings(max_examples=num_examples(25), deadline=None)
@given(data=st.data())
def test_the_prompt_of_every_reply_is_how_its_training_example_begins(folders, name, data):
    folder = folders[name]
    turns = data.draw(_dialogues(name, look_alikes=True)).turns
    (example,) = folder.encoder.encode([Dialogue(turns)])[0]
    for index, turn in enumerate(turns):
        # Before the first question there is no prompt: a chat begins with the user.
        if turn.role == "assistant" and any(earlier.role == "user" for earlier in turns[:index]):
            prompt = folder.reloaded.prompt(turns[:index], max_new_tokens=1)
            assert prompt.num_dropped == 0
            assert example.input_ids[: len(prompt.ids)].tolist() == prompt.ids


@every_template
@settings(max_examples=num_examples(25), deadline=None)
@given(data=st.data())
def test_plain_transformers_renders_the_training_ids(folders, name, data):
    folder = folders[name]
    turns = data.draw(_dialogues(name)).turns
    (ours,), (again,) = (
        each.encode([Dialogue(turns)])[0] for each in (folder.encoder, folder.reloaded)
    )
    assert ours.input_ids.tolist() == again.input_ids.tolist() == _theirs(folder.plain, turns)
    assert ours.targets.tolist() == again.targets.tolist()
    if turns[-1].role == "user" or name in TEMPLATES:
        ids = folder.encoder.prompt(turns, max_new_tokens=1).ids
        assert (
            ids
            == folder.reloaded.prompt(turns, max_new_tokens=1).ids
            == _theirs(folder.plain, turns, prompt=True)
        )
    folder.encoder.require_parity(turns)


@every_template
@settings(max_examples=num_examples(25), deadline=None)
@given(data=st.data())
def test_the_whole_text_is_that_of_plain_transformers_even_if_a_text_spells_a_token(
    folders, name, data
):
    """There transformers reads a token and convo a text, so only the texts can be compared."""
    folder = folders[name]
    turns = data.draw(_dialogues(name, look_alikes=True)).turns
    rendered = folder.plain.apply_chat_template(as_messages(turns), tokenize=False)
    assert "".join(piece.text for piece in folder.encoder.template.render(turns)) == rendered


@every_template
def test_the_folder_stops_where_the_encoder_does(folders, name):
    folder = folders[name]
    assert folder.reloaded.stop_ids == folder.encoder.stop_ids
    assert folder.plain.convert_tokens_to_ids(list(folder.encoder.template.stop_tokens)) == list(
        folder.encoder.stop_ids
    )


@pytest.mark.parametrize("name", ["turns", "chatml"])
@settings(max_examples=num_examples(25), deadline=None)
@given(data=st.data())
def test_the_native_template_of_an_export_gives_the_ids_and_targets_it_was_made_from(
    folders, name, data
):
    folder = folders[name]
    native = native_encoder(folder.plain)
    dialogue = data.draw(_dialogues(name, look_alikes=True))
    (ours,), (theirs,) = folder.encoder.encode([dialogue])[0], native.encode([dialogue])[0]
    assert ours.input_ids.tolist() == theirs.input_ids.tolist()
    assert ours.targets.tolist() == theirs.targets.tolist()
    assert set(native.stop_ids) >= set(folder.encoder.stop_ids)


@every_template
def test_a_template_that_fits_the_tokenizer_passes_the_parity_check(
    folders, name, sample_dialogues
):
    for dialogue in sample_dialogues[:20]:
        folders[name].encoder.require_parity(dialogue.turns[:2])
