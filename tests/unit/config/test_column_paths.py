from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from convo_cli.config.column_paths import path_to, steps_of
from convo_cli.config.schema import ColumnsConfig
from convo_cli.data.shapes.mapped.steps import path_of, value_at
from tests.cases import num_examples


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("dialog", ("dialog",)),
        ("meta.dialog", ("meta", "dialog")),
        ("data[0].turns", ("data", 0, "turns")),
        ("$", ()),
        ("$.data[12][3]", ("data", 12, 3)),
        ("$[0]", (0,)),
        ('author["full name"]', ("author", "full name")),
        ('$["a.b"]["\\""]', ("a.b", '"')),
        ("full name", ("full name",)),
        ("$type", ("$type",)),
        ("0", ("0",)),
        ("질문.답", ("질문", "답")),
    ],
)
def test_a_path_is_keys_joined_by_dots_and_numbers_in_brackets(path: str, steps: object) -> None:
    assert steps_of(path) == steps


@pytest.mark.parametrize(
    "path",
    ["", ".", ".a", "a.", "a..b", "$.", "$$.", "a[", "a[]", "a[x]", "a[-1]", "a]", "a[0]b", "a.[0]",
     '"a"', 'a["b]', 'a["\\x"]', "[0].", 'a["b"]c'],
)  # fmt: skip
def test_anything_else_is_refused_by_the_config(path: str) -> None:
    with pytest.raises(ValidationError, match="not a path: write keys joined by dots"):
        ColumnsConfig(turns=path)


@settings(max_examples=num_examples(50))
@given(st.lists(st.text(min_size=1) | st.integers(0, 99), max_size=4))
def test_a_written_path_is_read_as_the_same_steps(steps: list[str | int]) -> None:
    assert steps_of(path_to(tuple(steps))) == tuple(steps)


@settings(max_examples=num_examples(50))
@given(st.lists(st.text("ab1 .[]$é", min_size=1, max_size=40) | st.integers(0, 9), max_size=4))
def test_the_paths_in_messages_can_be_used_as_they_are(steps: list[str | int]) -> None:
    value: object = "here"
    for step in reversed(steps):
        value = {step: value} if isinstance(step, str) else [*[None] * step, value]
    assert steps_of(path_of("$", tuple(steps))) == tuple(steps)
    assert value_at(json.loads(json.dumps(value)), tuple(steps)) == "here"


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"user": "q"}, "set both user and assistant"),
        ({"assistant": "a", "turns": "t"}, "set both user and assistant"),
        ({"user": "q", "assistant": "a", "speaker": "s"}, "or speaker for turns, not both"),
        ({"user": "q", "assistant": "a", "text": "t"}, "or text for turns, not both"),
        ({"turns": "t", "history": "h"}, "set history for pairs, or turns"),
        ({"user": "q", "assistant": "$.q"}, "the paths of user and assistant are the same"),
        ({"speaker": "x", "text": "x"}, "the paths of speaker and text are the same"),
        ({"turns": "x", "system": "x"}, "the paths of turns and system are the same"),
        ({"user": "q", "assistant": "a", "history": "q"}, "history and user are the same"),
    ],
)
def test_paths_that_contradict_each_other_are_refused(paths: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ColumnsConfig(**paths)
    assert ColumnsConfig(turns="t", user="x", assistant="t").user == "x"  # a path in an item
