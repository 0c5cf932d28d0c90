"""Wording of messages."""

from __future__ import annotations

import pytest

from convo_cli.wording import counted, quoted


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps"), (12345, "12,345 steps")]
)
def test_a_noun_is_in_the_plural_unless_its_number_is_1(number: int, words: str) -> None:
    assert counted(number, "step") == words


def test_a_quoted_text_is_on_one_line_and_short() -> None:
    assert quoted("a\nb") == r'"a\nb"'
    assert quoted("abcdef", limit=4) == '"abc…"'
