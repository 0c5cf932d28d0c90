"""Tool calls in the data: every spelling becomes one form, and what is malformed is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from convo_cli.config.schema import DataConfig, SpeakersConfig
from convo_cli.data.dialogue import Turn, as_messages, has_target, tool_definitions
from convo_cli.data.fingerprint import fingerprint
from convo_cli.data.problems import Problem
from convo_cli.data.shapes.turns import read_value

CONFIG = DataConfig(train=("unused",))
USER = {"role": "user", "content": "Weather in Oslo?"}
REPLY = {"role": "assistant", "content": "It is 4 degrees."}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "4 C"}
DEFINITION = {"type": "function", "function": {"name": "weather", "parameters": {}}}


def call(arguments: Any = '{"city": "Oslo"}', **keys: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": arguments}
    return {"id": "c1", "type": "function", "function": function, **keys}


def calling(**keys: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [call()], **keys}


def turns_of(value: Any, config: DataConfig = CONFIG) -> list[Turn]:
    reading = read_value(value, config)
    assert reading is not None
    return [turn for _, turn in reading.turns]


def faults_of(value: Any) -> list[tuple[str, str]]:
    found: list[Problem] = []
    assert read_value(value, CONFIG, found.append) is None
    return [(problem.code, problem.path) for problem in found]


SPELLINGS: dict[str, Any] = {
    "openai": [USER, calling(), RESULT, REPLY],
    "no content": [USER, {"role": "assistant", "tool_calls": [call()]}, RESULT, REPLY],
    "arguments as an object": [USER, calling(tool_calls=[call({"city": "Oslo"})]), RESULT, REPLY],
    "calls as a string": [USER, calling(tool_calls=json.dumps([call()])), RESULT, REPLY],
    "flat call": [
        USER,
        calling(tool_calls=[{"name": "weather", "arguments": {"city": "Oslo"}}]),
        {"role": "tool", "content": "4 C"},
        REPLY,
    ],
    "legacy": [
        USER,
        {"role": "assistant", "content": "", "function_call": call()["function"]},
        {"role": "function", "name": "weather", "content": "4 C"},
        REPLY,
    ],
    "llama factory": {
        "conversations": [
            {"from": "human", "value": "Weather in Oslo?"},
            {"from": "function_call", "value": json.dumps(call()["function"])},
            {"from": "observation", "value": "4 C"},
            {"from": "gpt", "value": "It is 4 degrees."},
        ],
        "tools": "[]",
    },
    "other names": [
        USER,
        {"role": "tool_call", "content": json.dumps([call()])},
        {"role": "Tool-Response", "content": "4 C"},
        REPLY,
    ],
    "ipython": [USER, calling(), {"role": "ipython", "content": "4 C"}, REPLY],
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_of_a_call_is_read_alike_and_only_the_answer_is_a_reply(name: str) -> None:
    turns = turns_of(SPELLINGS[name])
    assert as_messages(turns) == [
        USER,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "call00000",
                    "type": "function",
                    "function": {"name": "weather", "arguments": {"city": "Oslo"}},
                }
            ],
        },
        {"role": "tool", "content": "4 C", "tool_call_id": "call00000", "name": "weather"},
        REPLY,
    ]
    assert [turn.is_reply for turn in turns] == [False, False, False, True]


@pytest.mark.parametrize(
    "keys",
    [
        {"tools": [DEFINITION], "parallel_tool_calls": False, "tool_choice": "auto"},
        {"tools": json.dumps([DEFINITION])},
        {"functions": [DEFINITION["function"]], "function_call": "auto"},
    ],
)
def test_definitions_are_read_in_every_spelling_and_come_first(keys: dict[str, Any]) -> None:
    reading = read_value({"messages": [USER, REPLY], **keys}, CONFIG)
    assert reading is not None
    turns = [turn for _, turn in reading.turns]
    assert tool_definitions(turns) == [DEFINITION]
    assert (turns[0].role, as_messages(turns)) == ("tools", [USER, REPLY])
    assert reading.unread == []


@pytest.mark.parametrize("none", [[], None, "", "[]", {}])
def test_an_empty_list_defines_and_calls_nothing(none: Any) -> None:
    line = {"messages": [USER, {**REPLY, "tool_calls": none}], "tools": none}
    assert not any(turn.uses_tools for turn in turns_of(line))


def test_results_name_their_call_in_any_order_and_may_be_empty() -> None:
    other = call(id="c2", function={"name": "clock", "arguments": ""})
    late = {"role": "tool", "tool_call_id": "c1", "content": None}
    early = {"role": "tool", "tool_call_id": "c2", "content": {"hour": 3}}
    turns = turns_of([USER, calling(tool_calls=[call(), other]), early, late, REPLY])
    linked = [json.loads(turn.tool_data) for turn in turns if turn.role == "tool"]
    assert linked == [
        {"tool_call_id": "call00001", "name": "clock"},
        {"tool_call_id": "call00000", "name": "weather"},
    ]
    assert [turn.text for turn in turns[2:4]] == ['{"hour": 3}', ""]


def test_a_call_that_is_only_written_in_a_text_is_no_reply() -> None:
    written = {"role": "assistant", "content": "<call>weather</call>"}
    turns = turns_of([USER, written, {"role": "tool", "content": "4 C"}, REPLY])
    assert [turn.is_call for turn in turns] == [False, True, False, False]


def test_a_dialogue_in_which_the_assistant_only_calls_has_no_target() -> None:
    turns = turns_of([USER, calling()])
    assert not has_target(turns, "assistant")
    assert not has_target(turns, "last")
    assert has_target(turns, "all")


def test_calls_results_and_definitions_tell_dialogues_apart_but_ids_do_not() -> None:
    def number(value: Any) -> int:
        return fingerprint(turns_of(value))

    one = [USER, calling(), RESULT, REPLY]
    renamed = [USER, calling(tool_calls=[call(id="x")]), {**RESULT, "tool_call_id": "x"}, REPLY]
    assert number(one) == number(renamed)
    others = [
        [USER, calling(tool_calls=[call('{"city": "Rome"}')]), RESULT, REPLY],
        [USER, calling(), {**RESULT, "content": "5 C"}, REPLY],
        {"messages": one, "tools": [DEFINITION]},
    ]
    assert len({number(value) for value in (one, *others)}) == 4


def test_a_name_that_the_config_gives_a_role_keeps_it() -> None:
    config = CONFIG.model_copy(update={"speakers": SpeakersConfig(user=("user", "tool"))})
    assert [turn.role for turn in turns_of([RESULT, REPLY], config)] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("turn", "path"),
    [
        (calling(tool_calls=[call("{")]), "[1].tool_calls[0].function.arguments"),
        (calling(tool_calls=[call("[1]")]), "[1].tool_calls[0].function.arguments"),
        (calling(tool_calls=[call(5)]), "[1].tool_calls[0].function.arguments"),
        (calling(tool_calls=[call('{"a": NaN}')]), "[1].tool_calls[0].function.arguments"),
        (calling(tool_calls=[{"id": "c1"}]), "[1].tool_calls[0]"),
        (calling(tool_calls=[call(function={"name": ""})]), "[1].tool_calls[0].function.name"),
        (calling(tool_calls=["weather"]), "[1].tool_calls[0]"),
        (calling(tool_calls="weather"), "[1].tool_calls"),
        (calling(tool_calls=7), "[1].tool_calls"),
        ({**USER, "tool_calls": [call()]}, "[1].tool_calls"),
        ({"from": "function_call", "value": "weather()"}, "[1].value"),
        ({"role": "assistant", "function_call": {"arguments": "{}"}}, "[1].function_call"),
        (RESULT, "[1].content"),
    ],
)
def test_a_malformed_call_is_an_error_at_its_path(turn: dict[str, Any], path: str) -> None:
    assert faults_of([USER, turn, REPLY]) == [("tool-call", f"${path}")]


def test_a_result_of_an_unknown_call_is_an_error() -> None:
    assert faults_of([USER, calling(), {**RESULT, "tool_call_id": "c9"}, REPLY]) == [
        ("tool-call", "$[2].content")
    ]


@pytest.mark.parametrize("tools", ["[{", [{"type": "function"}], [DEFINITION, "weather"]])
def test_malformed_definitions_are_an_error(tools: Any) -> None:
    ((code, path),) = faults_of({"messages": [USER, REPLY], "tools": tools})
    assert (code, path[:7]) == ("tool-call", "$.tools")


def test_other_metadata_under_the_key_of_definitions_is_only_not_read() -> None:
    reading = read_value({"messages": [USER, REPLY], "tools": ["hammer"]}, CONFIG)
    assert reading is not None
    assert [item.key for item in reading.unread] == ["tools"]
