"""Dialogues count as the same whatever their case, width and white space, and only then."""

from __future__ import annotations

import pytest

from convo_cli.data.dialogue import Turn
from convo_cli.data.fingerprint import fingerprint


def said(*texts, role="user"):
    return fingerprint([Turn(role, text) for text in texts])


@pytest.mark.parametrize(
    ("one", "other"),
    [("Hello there", "hello  there"), ("Straße", "STRASSE"), ("ｆｕｌｌ　width", "Full Width"), ("한글", "한글")],
)
def test_spelling_that_means_the_same_is_the_same(one, other):
    assert said("a", one) == said("a", other)


def test_who_speaks_does_not_count_but_where_a_turn_ends_does():
    assert said("a", role="user") == said("a", role="assistant")
    assert len({said("a b"), said("a", "b"), said("ab"), said("b", "a")}) == 4
