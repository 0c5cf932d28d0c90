from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convo_cli.config.schema import ColumnsConfig, DataConfig, SpeakersConfig
from convo_cli.data.dialogue import Turn
from convo_cli.data.problems import Problem
from convo_cli.data.shapes.turns import LineReading, read_value
from convo_cli.data.strict_json.columns import locate
from tests.cases import num_examples

HELLO = (Turn("user", "Hi"), Turn("assistant", "Hello!"))
KEYS = st.text(min_size=1, max_size=6)
TEXTS = st.text("abc é\n", min_size=1).map(str.strip).filter(bool)


def config(**paths: str) -> DataConfig:
    return DataConfig(train=("unused",), columns=ColumnsConfig(**paths))


def read(value: Any, **paths: str) -> LineReading:
    problems: list[Problem] = []
    reading = read_value(value, config(**paths), problems.append)
    assert reading is not None, problems
    return reading


def turns(value: Any, **paths: str) -> tuple[Turn, ...]:
    return tuple(turn for _, turn in read(value, **paths).turns)


def problems_of(value: Any, **paths: str) -> list[tuple[str, str, str]]:
    problems: list[Problem] = []
    assert read_value(value, config(**paths), problems.append) is None
    return [(problem.code, problem.path, problem.message) for problem in problems]


LIST = [{"who": "user", "body": "Hi"}, {"who": "bot", "body": "Hello!"}]
CASES: list[tuple[Any, dict[str, str]]] = [
    ({"meta": {"dialog": LIST}}, {"turns": "meta.dialog", "speaker": "who", "text": "body"}),
    ({"data": [{"turns": ["Hi", "Hello!"]}]}, {"turns": "data[0].turns"}),
    (LIST, {"turns": "$", "speaker": "who", "text": "body"}),
    (LIST, {"speaker": "who", "text": "body"}),
    ({"messages": LIST}, {"speaker": "who", "text": "body"}),
    (
        {"messages": [{"body": "Hi", "role": "user"}, {"body": "Hello!", "role": "gpt"}]},
        {"text": "body"},
    ),
    (
        {"log": [{"msg": {"by": "human", "parts": [{"t": "Hi"}]}},
                 {"msg": {"by": "gpt", "parts": [{"t": "Hello!"}]}}]},
        {"turns": "log", "speaker": "msg.by", "text": "msg.parts[0].t"},
    ),
    ({"rows": [["user", "Hi"], ["bot", "Hello!"]]},
     {"turns": "rows", "speaker": "$[0]", "text": "$[1]"}),
    ({"q": "Hi", "a": "Hello!"}, {"user": "q", "assistant": "a"}),
    ({"q": ["Hi"], "a": "Hello!"}, {"user": "q", "assistant": "a"}),
    ({"row": {"q": "Hi", "a": "Hello!"}, "messages": []},
     {"user": "row.q", "assistant": "row.a"}),
    ({"log": [{"USER": "Hi", "SYSTEM": "Hello!"}]},
     {"turns": "log", "user": "USER", "assistant": "SYSTEM"}),
]  # fmt: skip


@pytest.mark.parametrize(("value", "paths"), CASES, ids=[json.dumps(case[1]) for case in CASES])
def test_a_mapped_line_is_the_same_dialogue_and_keeps_its_own_paths(
    value: Any, paths: dict[str, str]
) -> None:
    reading = read(value, **paths)
    assert tuple(turn for _, turn in reading.turns) == HELLO
    raw = json.dumps(value).encode()
    for path, turn in reading.turns:
        at = locate(raw, [path])[path] - 1
        assert json.JSONDecoder().raw_decode(raw.decode(), at)[0] == turn.text


@settings(max_examples=num_examples(30))
@given(st.lists(KEYS, min_size=4, max_size=4, unique=True), st.lists(TEXTS, min_size=1, max_size=5))
def test_keys_of_any_spelling_can_be_mapped(keys: list[str], texts: list[str]) -> None:
    outer, inner, who, body = keys
    said = [{who: "user" if i % 2 else "gpt", body: text} for i, text in enumerate(texts)]
    named = [{"role": one[who], "content": one[body]} for one in said]
    paths = {
        "turns": f"{json.dumps([outer])}{json.dumps([inner])}",
        "speaker": json.dumps([who]),
        "text": json.dumps([body]),
    }
    assert turns({outer: {inner: said}}, **paths) == turns(named)


def test_a_system_text_and_a_history_may_be_null_but_not_missing() -> None:
    pair = {"q": "Hi", "a": "Hello!"}
    paths = {"user": "q", "assistant": "a", "system": "meta.brief", "history": "past"}
    earlier = [["Who?", "Me."]]
    system = (Turn("system", "Be kind."), Turn("user", "Who?"), Turn("assistant", "Me."))
    full = {**pair, "past": earlier, "meta": {"brief": "Be kind."}}
    assert turns(full, **paths) == (*system, *HELLO)
    assert turns({**pair, "past": None, "meta": {"brief": None}}, **paths) == HELLO
    assert problems_of(pair, **paths) == [
        ("missing-column", "$", "data.columns.system: the line has no $.meta.brief"),
        ("missing-column", "$", "data.columns.history: the line has no $.past"),
    ]


@pytest.mark.parametrize(
    ("value", "paths", "expected"),
    [
        ({"x": 1}, {"turns": "a.b"}, ("missing-column", "$", "turns: the line has no $.a.b")),
        ("x", {"turns": "a"}, ("missing-column", "$", "turns: the line has no $.a")),
        ({"a": "x"}, {"turns": "a[0]"}, ("missing-column", "$", "turns: the line has no $.a[0]")),
        ({"a": []}, {"turns": "a[0]"}, ("missing-column", "$", "turns: the line has no $.a[0]")),
        ({"a": "x"}, {"turns": "a"}, ("unknown-shape", "$.a", "a string, not a list of turns")),
        (
            {"a": [{"who": "user"}]},
            {"turns": "a", "speaker": "who", "text": "b.c"},
            ("missing-column", "$.a[0]", "text: the turn has no $.a[0].b.c"),
        ),
        (
            {"a": ["Hi"]},
            {"turns": "a", "text": "b"},
            ("missing-column", "$.a[0]", "text: the turn has no $.a[0].b"),
        ),
        (
            {"a": [{"q": "Hi"}]},
            {"turns": "a", "user": "q", "assistant": "r"},
            ("missing-column", "$.a[0]", "assistant: the turn has no $.a[0].r"),
        ),
        ({"q": 1, "a": "x"}, {"user": "q", "assistant": "a"}, ("text-not-string", "$.q", "number")),
        (
            {"a": [{"w": "user", "t": {"x": " "}}]},
            {"turns": "a", "speaker": "w", "text": "t.x"},
            ("empty-utterance", "$.a[0].t.x", "empty"),
        ),
        (
            {"a": [{"w": {"n": "Zed"}, "t": "x"}]},
            {"turns": "a", "speaker": "w.n", "text": "t"},
            ("unknown-speaker", "$.a[0].w.n", '"Zed"'),
        ),
    ],
)
def test_an_error_names_the_path_in_the_line_itself(
    value: Any, paths: dict[str, str], expected: tuple[str, str, str]
) -> None:
    ((code, path, message),) = problems_of(value, **paths)
    assert (code, path) == expected[:2]
    assert expected[2] in message


def test_masks_and_reasoning_beside_a_mapped_text_count_wherever_it_lies() -> None:
    paths = {"turns": "chat.log", "speaker": "msg.who", "text": "msg.body"}
    first = {"msg": {"who": "user", "body": "Hi"}}

    def roles(reply: dict[str, Any], **line: Any) -> list[bool]:
        value = {"chat": {"log": [first, reply], **line}}
        return [turn.is_trained for turn in turns(value, **paths)]

    reply = {"who": "bot", "body": "Hello!"}
    assert roles({"msg": reply}) == [True, True]
    assert roles({"msg": reply, "weight": 0}) == [True, False]
    assert roles({"msg": {**reply, "train": False}}) == [True, False]
    assert roles({"msg": reply}, loss=False) == [False, False]
    assert problems_of({"chat": {"log": [first, {"msg": reply, "mask": 1}]}}, **paths)[0][:2] == (
        "train-key",
        "$.chat.log[1].mask",
    )
    twice = {"msg": {**reply, "train": False}, "train": True}
    ((code, path, _),) = problems_of({"chat": {"log": [first, twice]}}, **paths)
    assert (code, path.startswith("$.chat.log[1]")) == ("train-conflict", True)
    thought = {"q": "Hi", "a": "Hello!", "thinking": "A greeting."}
    ((code, path, _),) = problems_of(thought, user="q", assistant="a")
    assert (code, path) == ("reasoning", "$.thinking")


def test_everything_beside_the_mapped_values_is_unread_under_its_own_path() -> None:
    value = {
        "id": 7,
        "role": "x",
        "prompt": "An unused prompt.",
        "data": [{"log": [{"who": "user", "body": "Hi", "role": "x", "no": 1}], "tag": "t"}, "y"],
    }
    reading = read(value, turns="data[0].log", speaker="who", text="body")
    assert {(path, key) for path, key, _ in reading.unread} == {
        ("$.id", "id"),
        ("$.role", "role"),
        ("$.prompt", "prompt"),
        ("$.data[0].log[0].role", "role"),
        ("$.data[0].log[0].no", "no"),
        ("$.data[0].tag", "tag"),
        ("$.data[1]", "data"),
    }


def test_names_without_a_role_stay_in_the_text() -> None:
    speakers = SpeakersConfig(assistant=("Cleo",), keep_names=True)
    said = [("Ada", "Who has the key? "), ("user", "Who?"), ("Ben", "Not me."), ("CLEO", "I do.")]
    expected = (
        Turn("user", "Ada: Who has the key?"),
        Turn("user", "Who?"),
        Turn("user", "Ben: Not me."),
        Turn("assistant", "I do."),
    )
    plain: list[Any] = [{"from": name, "value": text} for name, text in said]
    odd = {"log": [{"by": {"name": name}, "body": text} for name, text in said]}
    paths = ColumnsConfig(turns="log", speaker="by.name", text="body")
    for value, columns in (
        (plain, ColumnsConfig()),
        ({"turns": plain}, ColumnsConfig()),
        (odd, paths),
    ):
        data = DataConfig(train=("unused",), speakers=speakers, columns=columns)
        reading = read_value(value, data)
        assert reading is not None
        assert tuple(turn for _, turn in reading.turns) == expected
        raw = json.dumps(value).encode()
        assert 1 not in locate(raw, [path for path, _ in reading.turns]).values()


def test_reports_name_the_mapping_as_the_shape() -> None:
    turn = {"role": "user", "x": "Hi"}
    assert read({"x": [turn | {"content": "Hi"}]}, turns="x").shape == "data.columns"
    assert read({"messages": [turn]}, text="x").shape == "messages"


@settings(max_examples=num_examples(60))
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from("abct"), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    st.sampled_from(
        [
            {"turns": "a"},
            {"turns": "a", "speaker": "b", "text": "c"},
            {"turns": "$", "speaker": "a", "text": "b", "system": "c"},
            {"turns": "a[0]", "user": "b", "assistant": "c"},
            {"user": "a", "assistant": "b.c", "history": "c", "system": "t"},
            {"speaker": "a", "text": "b.t"},
        ]
    ),
)
def test_any_value_is_read_or_refused(value: Any, paths: dict[str, str]) -> None:
    problems: list[Problem] = []
    reading = read_value(value, config(**paths), problems.append)
    assert (reading is None) == any(problem.severity == "error" for problem in problems)
