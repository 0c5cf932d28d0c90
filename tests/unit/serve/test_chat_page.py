"""The file of the chat page: one short script, no way to make markup of text, a strict policy."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from convo_cli.serve.chat_page import chat_page

PAGE = chat_page().content.decode()
SCRIPTS = re.findall(r"<script[^>]*>(.*?)</script>", PAGE, re.DOTALL)
STYLES = re.findall(r"<style[^>]*>(.*?)</style>", PAGE, re.DOTALL)
VOID = {"meta", "link", "input"}


class Elements(HTMLParser):
    """Every element with its attributes, its parents and its own text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.texts: dict[int, str] = {}
        self._open: list[tuple[str, int]] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), [name for name, _ in self._open]))
        if tag not in VOID:
            self._open.append((tag, len(self.found) - 1))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for _, index in self._open:
            self.texts[index] = self.texts.get(index, "") + data


@pytest.fixture(scope="module")
def elements() -> Elements:
    parsed = Elements()
    parsed.feed(PAGE)
    return parsed


def policy() -> dict[str, list[str]]:
    parts = chat_page().headers["Content-Security-Policy"].split("; ")
    return {name: values for name, *values in map(str.split, parts)}


def test_the_page_has_one_script_of_at_most_500_lines():
    (script,) = SCRIPTS
    lines = script.strip().splitlines()
    assert len(lines) <= 500
    assert max(map(len, lines)) <= 100


def test_nothing_turns_a_text_into_markup_or_code():
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|setHTML|DOMParser|srcdoc"
        r"|document\.write|\beval\b|\bFunction\(|setAttribute\(\s*[\"'`](on|style|href|src)"
        r"|javascript:|import\("
    )
    assert re.search(forbidden, SCRIPTS[0]) is None


def test_the_policy_allows_this_script_and_style_and_connections_to_this_server_only():
    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert policy() == {
        "default-src": ["'none'"],
        "script-src": [hashed(SCRIPTS[0])],
        "style-src": [hashed(STYLES[0])],
        "img-src": ["data:"],
        "connect-src": ["'self'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
        "require-trusted-types-for": ["'script'"],
        "trusted-types": ["'none'"],
    }
    assert len(STYLES) == 1


def test_the_browser_guesses_no_type_and_sends_no_referrer():
    headers = chat_page().headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Type"] == "text/html; charset=utf-8"


def test_no_attribute_needs_what_the_policy_forbids(elements):
    for tag, attributes, _ in elements.found:
        assert not {name for name in attributes if name == "style" or name.startswith("on")}, tag
        assert set(attributes) & {"src", "srcset", "action", "formaction"} == set(), tag


def test_the_page_names_no_other_address(elements):
    assert re.search(r"https?:|//[a-z]|url\(|@import", PAGE) is None
    links = [attributes["href"] for _, attributes, _ in elements.found if "href" in attributes]
    assert links == ["data:,", "#message"]


def test_the_script_asks_for_the_models_and_for_replies_only():
    assert set(re.findall(r'"(/[^"]*)"', SCRIPTS[0])) == {"/v1/models", "/v1/chat/completions"}


def test_every_control_has_a_name_and_every_description_exists(elements):
    ids = [attributes["id"] for _, attributes, _ in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {attributes.get("for") for tag, attributes, _ in elements.found if tag == "label"}
    named_later = {"dialog-ok", "dialog-line", "dialog-area"}  # by the script, for each question
    for index, (tag, attributes, parents) in enumerate(elements.found):
        for name in ("aria-describedby", "aria-labelledby", "aria-controls", "for"):
            assert attributes.get(name, ids[0]) in ids
        if tag in ("input", "select", "textarea"):
            assert attributes.get("id") in labelled or "label" in parents
        if tag == "button":
            is_filled = attributes.get("id") in named_later or "data-do" in attributes
            is_filled |= attributes.get("class") == "open-chat"
            assert elements.texts.get(index, "").strip() or is_filled
    assert named_later < set(ids)


def test_the_landmarks_are_there_and_named(elements):
    tags = [tag for tag, _, _ in elements.found]
    for tag in ("header", "nav", "main", "form", "aside", "h1"):
        assert tag in tags
    for tag, attributes, _ in elements.found:
        if tag in ("nav", "aside"):
            assert attributes["aria-label"]
    assert 'lang="en"' in PAGE
