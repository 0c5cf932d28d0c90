"""Dialogues count as the same whatever their case, width and white space, and only then."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.config.schema import DataConfig
from convo_cli.data.checks.validate import validate_files
from convo_cli.data.dialogue import Turn
from convo_cli.data.fingerprint import fingerprint

WORDS = st.sampled_from(
    ["Hi", "hi", "ＨＩ", "Straße", "STRASSE", "é", "e\u0301", "\u00a0", "\u3000", " ", "\n", '"', "&amp;"]
)
TEXTS = st.lists(WORDS, min_size=1, max_size=3).map("".join).filter(str.strip)
DIALOGUES = st.lists(TEXTS, min_size=2, max_size=3)


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


@given(DIALOGUES, st.lists(DIALOGUES, min_size=1, max_size=4))
def test_validation_and_training_agree_about_what_is_the_same(tmp_path_factory, first, others):
    """The first dialogue is spelled in two ways, so that there is something to find."""
    dialogues = [first, *others, [text.upper() + " " for text in first]]
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    path.write_text("".join(json.dumps(texts) + "\n" for texts in dialogues), encoding="utf-8")
    (file,) = validate_files([str(path)], DataConfig(train=("unused",))).files
    different = {said(*(text.strip() for text in texts)) for texts in dialogues}
    assert file.num_duplicates == len(dialogues) - len(different)
