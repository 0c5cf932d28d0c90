"""The Jinja template renders the text of the pieces, with tokens of any name."""

from __future__ import annotations

from typing import Any, cast, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.config.keys import config_keys
from convo_cli.config.schema import TemplateName
from convo_cli.data.dialogue import Turn, as_messages
from convo_cli.text.templates import template as module
from convo_cli.text.templates.template import TEMPLATES, make_template
from tests.cases import num_examples
from tests.strategies import BUILT, LOOK_ALIKES

MARKUP = [
    "'", '"', "\\", "\\\\", "\n", "\r", "\r\n", "\t", "{", "}", "{{", "}}", "{%", "%}", "{#", "#}",
    "-%}", "{%- raw %}",
    "{% endraw %}", "\\n", "\\x4", "\\u12", "\\N{DASH}", "\x00", "\x1b[31m", "\x85",
    "\u2028", "<｜end▁of▁sentence｜>", "🙂", " ",
]  # fmt: skip
TOKENS = st.lists(st.sampled_from(MARKUP) | st.text(max_size=3), min_size=1, max_size=8).map(
    "".join
)
DIALOGUE = [Turn("user", "Hi"), Turn("assistant", "Hello!"), Turn("user", "So?")]
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


class _Tokenizer:
    """All that a template asks of one; its beginning token starts every text."""

    chat_template = None
    bos_token_id = 0

    def __init__(self, token):
        self.bos_token = self.eos_token = token

    def __call__(self, text):
        return {"input_ids": [0, 1]}


Tokenizer: Any = _Tokenizer


def rendered(template, turns, *, for_reply):
    from transformers.utils.chat_template_utils import _compile_jinja_template

    # Without its cache, which would grow.
    source = _compile_jinja_template.__wrapped__(template.chat_template)
    return source.render(messages=as_messages(turns), add_generation_prompt=for_reply)


def check(name, token):
    template = make_template(name, Tokenizer(token))
    for end in (1, 2, 3):
        for for_reply in (False, True):
            pieces = template.render(DIALOGUE[:end], for_reply=for_reply)
            assert rendered(template, DIALOGUE[:end], for_reply=for_reply) == "".join(
                piece.text for piece in pieces
            )


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_parts_are_joined_as_the_reader_joins_them_and_other_parts_are_refused(name):
    from jinja2.exceptions import TemplateError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    template = make_template(name, Tokenizer("<s>"))
    source = _compile_jinja_template(template.chat_template)
    parts = [{"type": "text", "text": text} for text in (" Hi", "", "you ")]
    whole = rendered(template, [Turn("user", "Hi\nyou")], for_reply=True)
    messages = [{"role": "user", "content": parts}]
    assert source.render(messages=messages, add_generation_prompt=True) == whole
    parts.append({"type": "image", "url": "a.png"})
    with pytest.raises(TemplateError, match="no place for content of type image"):
        source.render(messages=messages, add_generation_prompt=True)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=num_examples(200), deadline=None)
@given(TOKENS)
def test_any_token_is_rendered_as_it_is(name, token):
    check(name, token)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    "token",
    ["<it's>", "' }}" + LOOP + "{{ '", "\\", "'", "a\nb", "{# ", "\\' + messages|string + '"],
)
def test_no_part_of_a_token_is_read_as_jinja(name, token):
    check(name, token)


@pytest.mark.parametrize("token", ["<s>", "<|endoftext|>", "<｜begin▁of▁sentence｜>"])
def test_an_ordinary_token_stands_in_the_source_as_it_is(token):
    """Runs of earlier versions compare the source with their dialogue.json."""
    assert make_template("turns", Tokenizer(token)).chat_template.startswith(
        "{{- '" + token + "' }}{%- for"
    )


def test_a_tokenizer_that_drops_a_letter_has_no_beginning_token():
    class Dropping(_Tokenizer):
        def __call__(self, text):
            return {"input_ids": []}

    template = make_template("turns", cast(Any, Dropping("<s>")))
    assert template.render(DIALOGUE[:1])[0].text == "<|user|>"


def test_every_template_is_named_by_the_config_and_described():
    assert {*TEMPLATES, "auto", "native"} == set(get_args(TemplateName)), (
        "TEMPLATES and TemplateName differ"
    )
    described = config_keys()["dialogue.template"].doc
    assert [name for name in TEMPLATES if name not in described] == [], (
        "missing in the docstring of dialogue.template"
    )
    drawn = [name for name in TEMPLATES if f"\n    {name} " in str(module.__doc__)]
    assert drawn == list(TEMPLATES), "missing in the docstring of text/template.py"


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_laws_put_the_special_tokens_of_every_template_into_texts(name):
    """A text that spells a special token stays text."""
    assert [token for token in BUILT[name].special_tokens if token not in LOOK_ALIKES] == [], (
        "missing in LOOK_ALIKES of tests/strategies.py"
    )
