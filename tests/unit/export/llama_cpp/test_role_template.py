"""A role template renders what the chat template renders, or there is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings

from convo_cli.data.dialogue import Turn
from convo_cli.export.llama_cpp.modelfile import role_template_of
from convo_cli.text.bounded.rendering import Rendered, render_all
from tests.cases import num_examples
from tests.families import TEMPLATES
from tests.strategies import BUILT, WITH_SYSTEM, dialogues

TOKENIZER: Any = cast(
    Any,
    SimpleNamespace(
        special_tokens_map={"bos_token": "<s>", "eos_token": "</s>"}, name_or_path="made"
    ),
)
OTHER_FORM = {
    "blenderbot": "the last turn has another ending",
    "deepseek": "reasoning of replies is dropped",
    "glm45": "reasoning of replies is dropped",
    "llama3": "it has the date of the day",
    "llama31": "it has the date of the day",
    "mistral-last": "the system text is in the last user turn",
    "mistral-tekken": "the system text is in the last user turn",
    "qwen3": "reasoning of earlier replies is dropped",
    "r1": "reasoning of replies is dropped",
    "smollm3": "reasoning of earlier replies is dropped",
}
SOURCES = {name: template.chat_template for name, template in BUILT.items()} | {
    path.stem: path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.glob("*.jinja"))
}
LLAMA_3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.first %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def rendered(source, turns):
    (one,) = render_all(TOKENIZER, source, [turns], for_reply=True)
    return one.text if isinstance(one, Rendered) else None


@pytest.fixture(scope="module")
def found():
    return {name: role_template_of(TOKENIZER, source) for name, source in SOURCES.items()}


def test_a_template_has_another_form_for_a_known_reason_only(found):
    assert {name for name, texts in found.items() if texts is None} == set(OTHER_FORM)


@pytest.mark.parametrize("name", sorted(set(SOURCES) - set(OTHER_FORM)))
def test_a_role_template_renders_any_question_like_the_chat_template(found, name):
    """Tulu's template writes no line break after a last reply, which Ollama is never asked for."""
    has_system = "system" in found[name].before

    @settings(max_examples=num_examples(5))
    @given(dialogues(look_alikes=True, system=has_system))
    def check(dialogue):
        turns = [*dialogue.turns, Turn("user", "Why?")]
        text = rendered(SOURCES[name], turns)
        assert text is None or found[name].render(turns) == text

    check()


def test_convos_own_templates_refuse_the_roles_that_they_have_no_place_for(found):
    assert [name for name in BUILT if "system" in found[name].before] == WITH_SYSTEM


def test_a_default_system_text_is_written_where_no_system_turn_is():
    source = (TEMPLATES / "qwen.jinja").read_text(encoding="utf-8")
    texts = role_template_of(TOKENIZER, source)
    assert texts.start == ""
    assert texts.start_without_system.startswith("<|im_start|>system\n")


def test_llama_3_begins_with_one_token_and_removes_spaces():
    texts = role_template_of(TOKENIZER, LLAMA_3)
    assert (texts.start, texts.start_without_system) == ("<s>", "<s>")
    assert not texts.system_is_first
    assert texts.trimmed == {"system", "user", "assistant"}


@pytest.mark.parametrize(
    ("change", "by"),
    [
        ("{% endfor %}", "{% if loop.index > 3 %}!{% endif %}{% endfor %}"),
        ("{% endfor %}", "{% if 'Peru' in content %}!{% endif %}{% endfor %}"),
        ("{{ content }}", "{{ content.split('</think>')[-1] }}"),
        ("| trim", "| trim | upper"),
        ("{% endfor %}", "{% endfor %}{% if messages | length > 4 %}!{% endif %}"),
        ("bos_token + content", "strftime_now('%Y') + content"),
    ],
)
def test_a_template_that_differs_for_some_dialogues_has_none(change, by):
    source = LLAMA_3.replace(change, by)
    assert source != LLAMA_3
    assert role_template_of(TOKENIZER, source) is None
