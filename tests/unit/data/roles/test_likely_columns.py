from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convo_cli.config.schema import ColumnsConfig, DataConfig
from convo_cli.data.roles.likely_columns import likely_columns
from convo_cli.data.shapes.turns import read_value
from tests.cases import num_examples

GOOD: list[tuple[Any, dict[str, str]]] = [
    (
        {"log": [{"who": "Ann", "utt": "Hello there"}, {"who": "Bo", "utt": "Hi"}], "id": 3},
        {"turns": "log", "speaker": "who", "text": "utt"},
    ),
    (
        {"chat": {"items": [{"author": {"name": "Ann", "id": 7}, "ts": 1, "say": "Hello there"}]}},
        {"turns": "chat.items", "speaker": "author.name", "text": "say"},
    ),
    (
        [{"sender": "agent", "body": "Hello there"}, {"sender": "me", "body": "Hi"}],
        {"turns": "$", "speaker": "sender", "text": "body"},
    ),
    (
        {"utterances": [{"speaker_idx": 0, "utterance": "Hello there"},
                        {"speaker_idx": 1, "utterance": "Hi you"}]},
        {"turns": "utterances", "speaker": "speaker_idx", "text": "utterance"},
    ),
    (
        {"contents": [{"role": "user", "parts": [{"text": "Hi"}]},
                      {"role": "model", "parts": [{"text": "Hello!"}]}],
         "systemInstruction": {"role": "system", "parts": [{"text": "Be brief, please."}]}},
        {"turns": "contents", "speaker": "role", "text": "parts[0].text",
         "system": "systemInstruction.parts[0].text"},
    ),
    (
        {"turns": [{"turn_id": 1, "usr": "A hotel", "sys": "Which area?"}]},
        {"turns": "turns", "user": "usr", "assistant": "sys"},
    ),
    ({"rounds": [{"Q": "Why?", "A": "Because."}]},
     {"turns": "rounds", "user": "Q", "assistant": "A"}),
    ({"soru": "Nasılsın?", "cevap": "İyiyim"}, {"user": "soru", "assistant": "cevap"}),
    ({"post": "I lost my key", "reply_text": "Look below the mat"},
     {"user": "post", "assistant": "reply_text"}),
    ({"id": "x-17", "left": "Who is there?", "right": "It is me."},
     {"user": "left", "assistant": "right"}),
    ({"script": ["Who is there?", "It is me."], "tags": ["a", "b"]}, {"turns": "script"}),
    ({"full text": [{"odd.name": "agent", "what is said": "Hello there"},
                    {"odd.name": "me", "what is said": "Hi"}]},
     {"turns": '$["full text"]', "speaker": '$["odd.name"]', "text": '$["what is said"]'}),
]  # fmt: skip
BAD: list[Any] = [
    {"id": "7", "title": "News", "body": "One long text."},
    {"text": "<|user|> Hello there <|assistant|> Hi"},
    {"prompt": "Hello there", "chosen": "Yes, gladly", "rejected": "No, never"},
    {"chosen": "Human: Hello there", "rejected": "Human: No, never"},
    {"conversation_id": "c1", "parent_id": None, "role": "prompter", "text": "Hello there"},
    {"conv_id": "h:1", "utterance_idx": "1", "prompt": "I was glad", "utterance": "At the fair"},
    {"timestamp": "2024-01-02 10:00", "sender": "Ada", "message": "Are you coming?"},
    {"question_id": 81, "choices": [{"index": 0, "turns": ["A line.", "Another line."]}]},
    {"utterances": [{"candidates": ["Not this", "Not that"], "history": ["Hello there"]}]},
    {"user_name": "You", "character_name": "Zed"},
    {"scores": [1, 2], "names": ["a", "b"]},
    "text", 5, None, [], {}, [[]], {"a": []}, {"a": [{}]},
]  # fmt: skip


@pytest.mark.parametrize(("value", "columns"), GOOD)
def test_the_columns_of_a_likely_shape_are_found(value: Any, columns: dict[str, str]) -> None:
    assert dict(likely_columns(value)) == columns


@pytest.mark.parametrize("value", BAD)
def test_nothing_is_proposed_for_what_is_no_dialogue(value: Any) -> None:
    assert likely_columns(value) == ()


VALUES = st.recursive(
    st.none() | st.integers() | st.sampled_from(["", "agent", "Hello there", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["q", "a", "role", "text", "x y", ""]), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=num_examples(50), suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_what_is_proposed_for_any_value_is_a_valid_config_that_finds_every_path(value: Any) -> None:
    columns = ColumnsConfig(**dict(likely_columns(value)))
    problems = []
    config = DataConfig(train=("unused",), columns=columns)
    read_value(value, config, problems.append)
    if columns.turns or columns.user:
        assert [problem for problem in problems if problem.code == "missing-column"] == []
