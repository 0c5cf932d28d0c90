"""Texts of others in a card are shown as text, whatever they spell."""

from __future__ import annotations

import ast
import re

import pytest
from huggingface_hub import metadata_load
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from convo_cli.export.card.base_model import Base, Licence
from convo_cli.export.card.card_facts import CardFacts
from convo_cli.export.card.card_metadata import front_matter
from convo_cli.export.card.markdown import as_code, as_markdown, bullets, cell, table, visible
from convo_cli.export.card.usage_section import usage
from convo_cli.export.formats import FORMATS
from tests.hostile_texts import TERMINAL, UNSHOWN
from tests.unit.export.card.conftest import ABOUT

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
WORDS = st.sampled_from(
    ["#", "-", "+", "* ", "1.", "2)", "> ", "|", "\\", "`", "``", "~~", "**", "_a_", "[a](b)", "]",
     "<b>", "</b>", "<!--", "&lt;", "http://a.b", "www.a.b", "a@b.c", "---", "===", "\n", "\t", " ",
     "a", "Z9", "é", "日本", "\u202e", "\x1b[31m", "\ud800", "$x$", ":a:", "{}", "%", "'", '"']
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=100), st.lists(WORDS, max_size=12).map("".join))


def words_of(tokens):
    """Return the types of the block tokens, and the text of all inline ones."""
    kinds, text, inline_kinds = [], "", set()
    for token in tokens:
        kinds.append(token.type)
        for child in token.children or ():
            inline_kinds.add(child.type)
            text += child.content
    return kinds, text, inline_kinds


@given(TEXTS)
@example("1. a")
@example("- a")
@example("a\u115fb\u3164")
@example("a #")
@example("x" * 1000)
def test_a_text_is_a_heading_a_paragraph_an_item_or_a_cell_and_no_more(text):
    shown = visible(text)
    assert len(shown) <= 80 * 10
    assert not UNSHOWN.search(shown)
    assert "\n" not in shown
    escaped, wanted = as_markdown(text), shown.strip()
    for form, kinds in (
        (f"# {escaped}", ["heading_open", "inline", "heading_close"]),
        (f"A text: {escaped}", ["paragraph_open", "inline", "paragraph_close"]),
    ):
        found, content, inline = words_of(MARKDOWN.parse(form))
        assert found == kinds
        assert content.removeprefix("A text:").strip() == wanted
        assert inline <= {"text", "text_special"}
    if wanted:
        found, content, inline = words_of(MARKDOWN.parse(bullets([escaped])))
        assert found == [
            "bullet_list_open", "list_item_open", "paragraph_open", "inline", "paragraph_close",
            "list_item_close", "bullet_list_close",
        ]  # fmt: skip
        assert content.strip() == wanted


@given(TEXTS)
@example(" ")
@example("  ")
@example(" `")
def test_a_text_in_code_or_in_a_cell_is_the_text(text):
    shown = visible(text)
    _, content, inline = words_of(MARKDOWN.parse(f"It ends with {as_code(text)}; then"))
    assert content == f"It ends with {shown or '(empty)'}; then"
    assert inline <= {"text", "text_special", "code_inline"}
    made = table(("a", "b"), [(as_markdown(text), cell(text)), ("x", "y")])
    kinds, content, inline = words_of(MARKDOWN.parse(made))
    assert [kind for kind in kinds if kind != "inline"].count("td_open") == 4
    assert (content[:2], content[-2:]) == ("ab", "xy")
    assert re.sub(r"\s", "", content[2:-2]) == re.sub(r"\s", "", shown + (shown or "(empty)"))
    assert inline <= {"text", "text_special", "code_inline"}


@given(title=TEXTS, licence=TEXTS, name=TEXTS)
@example(title="a\n---\nlicense: mit", licence="mit\n---", name="x: [y")
def test_the_yaml_has_exactly_the_shown_texts(tmp_path_factory, title, licence, name):
    facts = CardFacts(None, None, test=None)
    base = Base("a/b", "c" * 40, {}, Licence("cc-by-sa-4.0", name or None, licence or None))
    block = front_matter(title, ABOUT, facts, base, None, is_adapter=False)
    file = tmp_path_factory.mktemp("card") / "README.md"
    file.write_text(f"{block}\n# a\n\n---\n", encoding="utf-8")
    found = metadata_load(file)
    assert found == {
        "base_model": "a/b",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "license": "cc-by-sa-4.0",
        **({"license_name": visible(name, 300)} if name else {}),
        **({"license_link": visible(licence, 300)} if licence else {}),
        "pipeline_tag": "text-generation",
        "tags": ["conversational", "convo"],
    }


@pytest.mark.parametrize("licence", ["MIT", "a b", "<b>", "other\nbase_model: x", "x" * 50, "-"])
def test_a_licence_that_is_no_identifier_of_the_hub_stays_out_of_the_metadata(licence):
    base = Base("a/b", "c" * 40, {}, Licence(licence, None, None))
    block = front_matter("a", ABOUT, CardFacts(None, None), base, None, is_adapter=True)
    assert "license" not in block
    assert "base_model_relation: adapter" in block


@pytest.mark.parametrize("text", TERMINAL.values())
def test_control_sequences_become_visible(text):
    for shown in (visible(text), as_markdown(text), as_code(text)):
        assert not UNSHOWN.search(shown)


class Named:
    """Stands for a template with hostile names."""

    def __init__(self, text):
        self.stop_tokens, self.name = (text,), text


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("text", ["<|end|>", "```\n# x", '"\n`', "\\", "'\"", "\u2028x", "{max}"])
def test_no_stop_token_or_template_name_changes_the_form_of_the_usage(
    name, text, checkpoint_model, monkeypatch
):
    source, about = checkpoint_model, FORMATS[name].about()
    plain = MARKDOWN.parse(usage(about, source))
    encoder = source.generator.encoder
    monkeypatch.setattr(encoder, "template", Named(text))
    text_of_usage = usage(about, source)
    found = MARKDOWN.parse(text_of_usage)
    assert [(one.type, one.info) for one in found] == [(one.type, one.info) for one in plain]
    assert not UNSHOWN.search(text_of_usage)
    for fence in found:
        if fence.info == "python":
            ast.parse(fence.content)
