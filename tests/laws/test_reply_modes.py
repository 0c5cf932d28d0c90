"""Replies of templates whose earlier replies or generation prompts differ from the last reply.

Each reply is trained on as plain transformers renders it as the last of its dialogue, after its
own generation prompt.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError

from convo_cli.data.dialogue import Dialogue, Turn, as_messages
from convo_cli.data.problems import Problem
from convo_cli.text.contract import contract_of, load_encoder, save_encoder
from convo_cli.tokens.store import ASSISTANT_TARGET, Encoded
from tests.cases import num_examples
from tests.families import CHANGING, family_dialogues, family_tokenizer, native_encoder

every_family = pytest.mark.parametrize("name", CHANGING)
KEEPING = "qwen3, which thinks only in its last turn"
THOUGHT = "<think>\nHm, {}.\n</think>\n\n"


@pytest.fixture(scope="module")
def folders(sample_dialogues, tmp_path_factory):
    from transformers import AutoTokenizer

    made = {}
    for name, family in CHANGING.items():
        encoder = native_encoder(family_tokenizer(family, sample_dialogues))
        folder = tmp_path_factory.mktemp("export")
        save_encoder(encoder, folder, spiece=None)
        made[name] = encoder, load_encoder(folder), AutoTokenizer.from_pretrained(folder)
    return made


def _theirs(plain, turns, *, prompt=False):
    return plain.apply_chat_template(
        as_messages(turns), return_dict=False, add_generation_prompt=prompt
    )


@every_family
@settings(max_examples=num_examples(15), deadline=None)
@given(data=st.data())
def test_every_reply_is_trained_on_after_its_prompt_as_plain_transformers_renders_it(
    folders, name, data
):
    encoder, reloaded, plain = folders[name]
    turns = data.draw(family_dialogues(CHANGING[name])).turns
    examples = encoder.encode([Dialogue(turns)])[0]
    assert [one.input_ids.tolist() for one in examples] == [
        one.input_ids.tolist() for one in reloaded.encode([Dialogue(turns)])[0]
    ]
    trained = {
        stop for stop, turn in enumerate(turns, 1) if turn.role == "assistant" and turn.is_trained
    }
    rendered = {tuple(_theirs(plain, turns[:stop])): stop for stop in {*trained, len(turns)}}
    said = []
    for example in examples:
        ids = example.input_ids.tolist()
        stop = rendered[tuple(ids)]
        targets = example.targets == ASSISTANT_TARGET
        if targets.any():
            said += example.input_ids[targets].tolist()
        before = turns[: stop - 1]
        if turns[stop - 1].role == "assistant" and any(turn.role == "user" for turn in before):
            prompt = reloaded.prompt(before, max_new_tokens=1).ids
            assert ids[: len(prompt)] == prompt == _theirs(plain, before, prompt=True)
    family = CHANGING[name]
    earlier = family.earlier_answer or family.answer
    answers = [
        (family.answer if stop == len(turns) else earlier).format(turns[stop - 1].text)
        for stop in sorted(trained)
    ]
    expected = [plain.encode(answer, add_special_tokens=False) for answer in answers]
    assert said == [token for ids in expected for token in ids]
    encoder.require_parity(turns)


@every_family
def test_a_long_dialogue_becomes_windows_that_end_with_one_reply_each(folders, name):
    encoder, _, plain = folders[name]
    turns = tuple(
        Turn(("user", "assistant")[k % 2], f"This is what is said in turn {k}.") for k in range(12)
    )
    cut = type(encoder)(encoder.tokenizer, encoder.template, max_length=110)
    (found,) = cut.encode_all([Dialogue(turns)])
    assert isinstance(found, Encoded)
    renderings = set()
    for first, stop in combinations(range(len(turns) + 1), 2):
        with suppress(TemplateError):  # a family may refuse to begin with a reply
            renderings.add(tuple(_theirs(plain, turns[first:stop])))
    said = []
    for example in found.examples:
        ids = tuple(example.input_ids.tolist())
        assert len(ids) <= 110
        if CHANGING[name].is_one_by_one:
            assert ids in renderings
        said += example.input_ids[example.targets == ASSISTANT_TARGET].tolist()
    assert plain.decode(said).count("This is what is said in turn") == 6


def test_kept_reasoning_is_rendered_once_and_trained_on_in_the_last_reply(
    sample_dialogues, tmp_path
):
    from transformers import AutoTokenizer

    encoder = native_encoder(
        family_tokenizer(CHANGING[KEEPING], sample_dialogues), keeps_reasoning=True
    )
    save_encoder(encoder, tmp_path, spiece=None)
    assert contract_of(load_encoder(tmp_path)) == contract_of(encoder)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    turns = (
        Turn("user", "One?"),
        Turn("assistant", THOUGHT.format("one") + "One."),
        Turn("user", "Two?"),
        Turn("assistant", THOUGHT.format("two") + "Two."),
        Turn("user", "Three?"),
        Turn("assistant", "Three."),
    )
    examples = load_encoder(tmp_path).encode([Dialogue(turns)])[0]
    assert [one.input_ids.tolist() for one in examples] == [
        _theirs(plain, turns[:stop]) for stop in (2, 4, 6)
    ]
    said = [plain.decode(one.input_ids[one.targets == ASSISTANT_TARGET]) for one in examples]
    assert said == [
        THOUGHT.format("one") + "One.<|im_end|>",
        THOUGHT.format("two") + "Two.<|im_end|>",
        "Three.<|im_end|>",
    ]
    assert "Hm, one" not in plain.decode(examples[1].input_ids)
    prompt = encoder.prompt(turns[:3], max_new_tokens=4).ids
    assert prompt == examples[1].input_ids[: len(prompt)].tolist()
    encoder.require_parity(turns)


def test_the_tags_of_kept_reasoning_are_tokens_and_have_a_text(sample_dialogues):
    family = CHANGING[KEEPING]
    family = replace(family, tokens=(*family.tokens, *family.unmarked), unmarked=())
    plain = family_tokenizer(family, sample_dialogues)
    encoder = native_encoder(plain, keeps_reasoning=True)
    said = THOUGHT.format("one") + "One."
    turns = (Turn("user", "One?"), Turn("assistant", said))
    ((example,),) = encoder.encode([Dialogue(turns)])
    assert example.input_ids.tolist() == _theirs(plain, turns)
    targets = example.input_ids[example.targets == ASSISTANT_TARGET].tolist()
    assert targets[0] == plain.convert_tokens_to_ids("<think>")
    assert encoder.decode(targets) == said


def test_a_reply_whose_reasoning_is_dropped_is_refused_without_a_question_too(sample_dialogues):
    plain = family_tokenizer(CHANGING[KEEPING], sample_dialogues)
    # Real templates of Qwen3 drop the reasoning of a dialogue without a question.
    plain.chat_template = plain.chat_template.replace(
        "last_question=-1", "last_question=messages | length - 1"
    )
    encoder = native_encoder(plain, keeps_reasoning=True)
    turns = (Turn("assistant", THOUGHT.format("one") + "One."), Turn("user", "Two?"))
    (found,) = encoder.encode_all([Dialogue((*turns, Turn("assistant", "Two.")))])
    assert isinstance(found, Problem)
    assert "drops the reasoning" in found.message
