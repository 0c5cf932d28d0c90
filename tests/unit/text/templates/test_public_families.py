"""Public model families: their own chat templates are trained on with a proof, or refused.

tests/laws/test_template_parity.py has the laws, with random dialogues of a part of the families.
"""

from __future__ import annotations

import pytest

from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.errors import ModelError
from tests.cases import quick_only
from tests.families import CHANGING, FAMILIES, REFUSED, family_tokenizer, native_encoder
from tests.public_families import PUBLIC

KNOWN = {**PUBLIC, **FAMILIES, **CHANGING, **REFUSED}
ANSWERING = [name for name in PUBLIC if PUBLIC[name].answer]
ACCEPTED = {name: family for name, family in KNOWN.items() if family.answer}
TALK = (
    *(Turn("user", "Hi there"), Turn("assistant", "Hello!")),
    *(Turn("user", "How are you?"), Turn("assistant", "Fine, thanks.")),
)


def test_most_families_are_accepted():
    assert len({family.template for family in KNOWN.values()}) >= 40
    assert len(ACCEPTED) >= 0.85 * len(KNOWN)


@pytest.mark.parametrize("name", quick_only(ANSWERING, *ANSWERING[::3]))
def test_a_reply_is_trained_on_after_the_prompt_that_transformers_renders(name, sample_dialogues):
    family = PUBLIC[name]
    tokenizer = family_tokenizer(family, sample_dialogues)
    encoder = native_encoder(tokenizer)
    told = [Turn("system", "Be brief.")] if family.has_system else []
    for turns in (TALK[:2], TALK, (*told, *TALK)):
        encoder.require_parity(turns)
        examples = encoder.encode([Dialogue(turns)])[0]
        replies = [turn.text for turn in turns if turn.role == "assistant"]
        assert len(examples) in ({1, len(replies)} if family.is_one_by_one else {1})
        written = "".join(
            tokenizer.decode(example.input_ids[example.targets == 1]) for example in examples
        )
        assert written.replace(" ", "") == "".join(
            family.answer.format(reply) for reply in replies
        ).replace(" ", "")
        prompt = encoder.prompt(turns[:-1], max_new_tokens=8).ids
        assert examples[-1].input_ids[: len(prompt)].tolist() == prompt


@pytest.mark.parametrize("name", [name for name in PUBLIC if not PUBLIC[name].answer])
def test_a_family_whose_replies_have_no_end_is_refused_with_a_way_out(name, sample_dialogues):
    with pytest.raises(ModelError, match="template native cannot be used") as caught:
        native_encoder(family_tokenizer(PUBLIC[name], sample_dialogues))
    assert "dialogue.template: turns" in str(caught.value.hint)
