"""Texts of other libraries' errors in convo's messages."""

from __future__ import annotations

import pytest

from convo_cli.errors import first_line


class Thing:
    def act(self):
        """Do nothing."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("first\nsecond", "first"),
        ("invalid field 'n_head':\n    not a number\nmore", "invalid field 'n_head': not a number"),
        (f"Unrecognized class {Thing} for this model", "Unrecognized class Thing for this model"),
        (f"not a {dict}", "not a dict"),
        (f"{Thing()} is no number", "Thing is no number"),
        (f"{Thing.act} and {Thing().act}", "act and act"),
    ],
    ids=range(6),  # an address in a text would differ between processes
)
def test_a_library_error_is_one_line_without_python_reprs(text, shown):
    assert first_line(ValueError(text)) == shown


@pytest.mark.parametrize("text", ["<|end|> and <unk> are missing", "<0x0A>", "a < 3 and b > 4"])
def test_tokens_and_comparisons_stay(text):
    assert first_line(ValueError(text)) == text


def test_a_missing_key_is_a_sentence_and_an_error_without_text_has_its_type():
    assert first_line(KeyError("gelu_7")) == "there is no 'gelu_7'"
    assert first_line(AssertionError()) == "AssertionError"
