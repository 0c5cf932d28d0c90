"""A warning names each ignored key with text, in validation and in a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.config.schema import DataConfig
from convo_cli.data.checks.validate import validate_files
from convo_cli.data.omissions import Omissions
from convo_cli.data.reader import read_dialogues
from convo_cli.data.shapes.unread import (
    SHORT_TEXT_CHARACTERS,
    UnreadTexts,
    counted_length,
    texts_in,
)

CONFIG = DataConfig(train=("unused",))
SENTENCE = "This is said nowhere else, and it is long."
TURN = {"role": "assistant", "content": "Hi!"}
HINT = "to train on a text, move it into a turn"


def warnings_of(folder: Path, values: list[Any]) -> tuple[list[str], list[str]]:
    """The messages of `validate-data` and of a run; both warn of the same keys."""
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))
    (file,) = validate_files([str(path)], CONFIG, max_problems=100).files
    groups = [group for group in file.problem_groups if group.code == "unread-text"]
    problems = [problem for group in groups for problem in group.problems]
    omissions = [Omissions()]
    assert list(read_dialogues([str(path)], CONFIG, omissions))
    assert msgspec.json.decode(msgspec.json.encode(omissions), type=list[Omissions]) == omissions
    notices = [
        notice.message for notice in omissions[0].notices("a.jsonl", None) if notice.is_warning
    ]
    for problem in problems:
        assert all(problem.message in notice or "more keys" in notice for notice in notices)
    return [str(problem).removeprefix(str(path)) for problem in problems], notices


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"turns": ["a", "b"], "note": SENTENCE},
            ':2:1 $.note the key "note" is ignored (1 text of 42 characters',
        ),
        (
            [TURN | {"context": [SENTENCE, SENTENCE]}, TURN],
            ':2:1 $[0].context the key "context" is ignored (2 texts',
        ),
        (
            {"turns": ["a", "b"], "extra": {"x": [{"y": SENTENCE}]}},
            ':2:1 $.extra the key "extra" is ignored (1 text',
        ),
        (
            {"prompt": "a", "completion": "b", "rejected": SENTENCE},
            ':2:1 $.rejected the key "rejected" is ignored',
        ),
        (
            {"instruction": "a", "output": "b", "context": "안녕하세요 " * 6},
            ':2:1 $.context the key "context"',
        ),
        ({"messages": [TURN, TURN], "input": SENTENCE}, ':2:1 $.input the key "input" is ignored'),
        ([TURN | {"text": SENTENCE}], ':2:1 $[0].text the key "text" is ignored'),
        (
            {"messages": [TURN], "conversations": [{"value": SENTENCE}]},
            ':2:1 $.conversations the key "conversations"',
        ),
        (
            {"turns": ["a", "b"], "tool_calls": [{"name": "wave"}]},
            ':2:1 $.tool_calls the key "tool_calls" is ignored (1 text',
        ),
        (
            {"instruction": "a", "output": "b", "chat_history": [["Hello", "Hi!"]]},
            ":2:1 $.chat_history the key",
        ),
        ({"messages": [TURN], "images": ["a.png"]}, ':2:1 $.images the key "images" is ignored'),
    ],
)
def test_a_key_with_text_in_it_is_named(tmp_path: Path, value: Any, message: str) -> None:
    problems, notices = warnings_of(tmp_path, [["Hello", "Hi!"], value])
    assert [problem[: len(message)] for problem in problems] == [message]
    assert len(notices) == 1


@pytest.mark.parametrize(
    "keys",
    [
        {"id": "x1_0", "lang": "en", "ok": True, "score": 0.5, "nothing": None},
        {"id": "123e4567-e89b-12d3-a456-426614174000", "hash": "3f2a" * 16},
        {"at": "2024-01-02T10:00:00.000000+00:00"},
        {
            "tags": ["travel", "food", "music", "books", "films"],
            "meta": {"source": "reddit", "author": "ann"},
        },
        {"note": "x" * SHORT_TEXT_CHARACTERS},
        {
            "prompt": "What did you say? I was not listening.",
            "tools": [],
            "tool_calls": None,
            "functions": "[]",
        },
    ],
)
def test_metadata_and_texts_that_a_turn_repeats_are_not_named(
    tmp_path: Path, keys: dict[str, Any]
) -> None:
    turns = ["What did you say? I was not listening.", "Never mind."]
    assert warnings_of(tmp_path, [{"turns": turns, **keys}]) == ([], [])


def test_a_key_is_named_once_for_a_file_with_its_count_at_its_first_place(tmp_path: Path) -> None:
    good = ["Hello", "Hi!"]
    noted = [{"turns": ["a", str(number)], "note": SENTENCE} for number in range(40)]
    problems, notices = warnings_of(tmp_path, [good, *noted, [TURN | {"note": ""}, TURN]])
    what = 'the key "note" is ignored (40 texts of 42 characters on average)'
    assert problems == [f":2:1 $.note {what}"]
    assert notices == [f"a.jsonl: {what}; {HINT}"]


def test_a_run_names_the_keys_with_the_most_text(tmp_path: Path) -> None:
    value = {"turns": ["a", "b"], **{f"note {size}": "é " * 20 * size for size in range(1, 9)}}
    _, (notice,) = warnings_of(tmp_path, [value])
    assert notice.startswith(
        'a.jsonl: the key "note 8" is ignored (1 text of 320 characters); the key'
    )
    assert notice.endswith(f"; 3 more keys; {HINT}")


@given(st.lists(st.text(max_size=80), min_size=1))
def test_a_key_is_named_exactly_if_its_texts_are_long_on_average(texts: list[str]) -> None:
    counted = UnreadTexts()
    for text in texts:
        counted.add(1, counted_length(text, ()))
        assert counted_length(text, (text.strip(),)) <= SHORT_TEXT_CHARACTERS
    assert counted.is_content("note") == (
        sum(counted_length(text, ()) for text in texts) > 30 * len(texts)
    )


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
    )
)
def test_every_text_of_a_value_is_found(value: Any) -> None:
    def leaves(value: Any) -> list[Any]:
        if isinstance(value, dict):
            value = list(value.values())
        return (
            [leaf for item in value for leaf in leaves(item)]
            if isinstance(value, list)
            else [value]
        )

    assert list(texts_in(value)) == [
        leaf for leaf in leaves(value) if isinstance(leaf, str) and leaf
    ]
