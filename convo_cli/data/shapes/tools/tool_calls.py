r"""Tool calls of a line: definitions of tools, calls of the assistant, and their results.

    {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": "{}"}}]}
    {"role": "assistant", "function_call": {"name": "weather", "arguments": "{}"}}
    {"from": "function_call", "value": "{\"name\": \"weather\", \"arguments\": {}}"}
    {"role": "tool", "tool_call_id": "c1", "content": "4 C"}, or with role function, observation, …
    {"messages": …, "tools": [{"type": "function", "function": {"name": "weather"}}]}, or functions

All become one form, that of `Turn.tool_data`. They are context and never targets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from convo_cli.data.dialogue import Role, Turn
from convo_cli.data.problems import Problem, kind_of, member
from convo_cli.data.shapes.collector import LocatedTurn
from convo_cli.data.shapes.items.turn_keys import SPEAKER_KEYS
from convo_cli.data.shapes.masks import Refuse
from convo_cli.data.strict_json.decoder import decode
from convo_cli.wording import quoted

DEFINITION_KEYS = ("tools", "functions")
"""Keys of a line with the definitions of the tools."""
SETTING_KEYS = ("parallel_tool_calls", "tool_choice", "function_call")
"""Keys of a line that tell a server how to use the tools."""
CALL_KEYS = ("tool_calls", "function_call")
RESULT_KEYS = ("tool_call_id", "name")

_Kind: TypeAlias = Literal["call", "result"]
NO_DATA = "{}"
TOOL_CALL = "tool-call"
"""The code of a problem."""
_KINDS: Mapping[str, _Kind] = {
    **dict.fromkeys(("functioncall", "functioncalls", "toolcall", "toolcalls"), "call"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "result"),
    **dict.fromkeys(("toolresponse", "toolresult", "tooloutput", "toolmessage"), "result"),
    **dict.fromkeys(("functionresponse", "functionresult", "functionoutput"), "result"),
}
"""The kinds of turns by the name of their speaker, without spaces, hyphens and underscores."""
_NOTHING: tuple[Any, ...] = (None, "", [], {}, "[]", "{}", "null")


class ToolTurn(NamedTuple):
    """A turn with calls, or the result of a call; ``keys`` are the keys that were read."""

    role: Role
    text: Any
    data: str
    """Its `Turn.tool_data`, with the ids of the line; never empty."""
    keys: tuple[str, ...]


def is_tool_turn(turn: Mapping[str, Any], roles: Mapping[str, Role]) -> bool:
    """Return whether a turn of the data has calls or is a result; ``roles`` are those of names."""
    if any(turn.get(key) not in _NOTHING for key in CALL_KEYS):
        return True
    names = (turn[key] for key in SPEAKER_KEYS if key in turn)
    return kind_of_speaker(next(names, None), roles) is not None


def kind_of_speaker(name: Any, roles: Mapping[str, Role]) -> _Kind | None:
    """Return whether a speaker who has no role by ``roles`` calls tools or gives their results."""
    if not isinstance(name, str) or name.casefold() in roles:
        return None
    return _KINDS.get(name.casefold().replace("_", "").replace("-", "").replace(" ", ""))


def read_tool_turn(
    turn: Mapping[str, Any],
    speaker_key: str,
    text_key: str | None,
    path: str,
    roles: Mapping[str, Role],
    refuse: Refuse,
) -> ToolTurn | None:
    """Read a turn with calls or a result; None if it is another turn."""
    if not is_tool_turn(turn, roles):
        return None
    name = turn[speaker_key]
    text = turn[text_key] if text_key else None
    at = member(path, text_key) if text_key else path
    kind = kind_of_speaker(name, roles)
    if kind == "result":
        if text_key is None:
            refuse("missing-key", path, f"the tool result has no text under {quoted('content')}")
        return ToolTurn("tool", *_result(turn, text, path, refuse), RESULT_KEYS)
    key = next((key for key in CALL_KEYS if turn.get(key) not in _NOTHING), None)
    if kind == "call" and key is None:
        return ToolTurn("assistant", "", read_calls(text, at, refuse), RESULT_KEYS)
    assert key is not None, "it is a tool turn"
    role = roles.get(name.casefold()) if isinstance(name, str) else None
    if role != "assistant" and kind != "call":
        who = quoted(name) if isinstance(name, str) else kind_of(name)
        refuse(TOOL_CALL, member(path, key), f"only the assistant can call tools, not {who}")
    calls = read_calls(turn[key], member(path, key), refuse)
    return ToolTurn("assistant", "" if text is None else text, calls, CALL_KEYS)


def _result(turn: Mapping[str, Any], text: Any, path: str, refuse: Refuse) -> tuple[Any, str]:
    """Return the text and the `Turn.tool_data` of a result, with the id of the line."""
    if text is None:
        text = ""
    elif isinstance(text, (dict, bool, int, float)) or (
        isinstance(text, list) and not any(isinstance(item, dict) for item in text)
    ):
        text = written(text)
    given = {key: turn[key] for key in RESULT_KEYS if turn.get(key) not in _NOTHING}
    for key, value in given.items():
        if not isinstance(value, str):
            refuse(TOOL_CALL, member(path, key), f'"{key}" is {kind_of(value)}, not a string')
    return text, written(given)


def read_calls(value: Any, path: str, refuse: Refuse) -> str:
    """Return the `Turn.tool_data` of one call or a list of calls, as JSON or as a string of it."""
    value = _parsed(value, path, refuse) if isinstance(value, str) else value
    if value is msgspec.UNSET:
        return NO_DATA
    if value == []:
        refuse(TOOL_CALL, path, "the list of tool calls is empty")
    calls = list[Any]()
    for item, function, inside in _functions(value, path, refuse, "the tool call"):
        key = "parameters" if "arguments" not in function else "arguments"
        arguments = _arguments(function.get(key), member(inside, key), refuse)
        name = _name(function, inside, refuse, "the tool call")
        given = item.get("id")
        call = {"id": given if isinstance(given, str) else None, "type": "function"}
        calls.append({**call, "function": {"name": name, "arguments": arguments}})
    return written({"tool_calls": calls})


def _functions(
    value: Any, path: str, refuse: Refuse, what: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
    """Yield each object of a list, or a single one, with its function and the function's path."""
    for index, item in enumerate(value if isinstance(value, list) else [value]):
        at = f"{path}[{index}]" if isinstance(value, list) else path
        if isinstance(item, dict):
            yield item, *_inner(item, at)
        else:
            refuse(TOOL_CALL, at, f"{what} is {kind_of(item)}, not an object")


def definitions_of(line: Mapping[str, Any], refuse: Refuse) -> list[LocatedTurn]:
    """Return the definitions of a line as one turn of role ``tools``; empty without any."""
    for key in DEFINITION_KEYS:
        value, path = line.get(key), member("$", key)
        if value in _NOTHING or not are_definitions(value):
            continue
        value = _parsed(value, path, refuse) if isinstance(value, str) else value
        if value is msgspec.UNSET:
            continue
        definitions = list[Any]()
        for item, function, inside in _functions(value, path, refuse, "the tool"):
            _name(function, inside, refuse, "the tool")
            has_type = "function" in item
            definitions.append(item if has_type else {"type": "function", "function": item})
        return [(path, Turn("tools", written(definitions), is_trained=False))]
    return []


def keys_of_tools(line: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of a line that define tools, or set how they are used."""
    defined = (key for key in DEFINITION_KEYS if key in line)
    return (
        *SETTING_KEYS,
        *(key for key in defined if line[key] in _NOTHING or are_definitions(line[key])),
    )


def may_define_tools(line: Any) -> bool:
    """Return whether a line has a text that defines tools if it is JSON."""
    return isinstance(line, dict) and any(isinstance(line.get(key), str) for key in DEFINITION_KEYS)


def are_definitions(value: Any) -> bool:
    """Return whether the value of a definition key defines tools, and is not other metadata."""
    if isinstance(value, str):
        return value.lstrip()[:1] in ("[", "{")
    return isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(item, dict) for item in value)
    )


def _inner(item: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Return the object with the name of a function, and its path."""
    inner = item.get("function")
    return (inner, member(path, "function")) if isinstance(inner, dict) else (item, path)


def _name(function: Mapping[str, Any], path: str, refuse: Refuse, what: str) -> str:
    name = function.get("name")
    if isinstance(name, str) and name.strip():
        return name
    if name is None:
        refuse(TOOL_CALL, path, f'{what} has no "name"')
    else:
        message = "empty" if isinstance(name, str) else f"{kind_of(name)}, not a string"
        refuse(TOOL_CALL, member(path, "name"), f"the name of {what} is {message}")
    return ""


def _arguments(value: Any, path: str, refuse: Refuse) -> Any:
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    value = _parsed(value, path, refuse) if isinstance(value, str) else value
    if value is None:
        return {}
    if value is not msgspec.UNSET and not isinstance(value, dict):
        refuse(TOOL_CALL, path, f"the arguments are {kind_of(value)}, not an object")
    return value if isinstance(value, dict) else {}


def _parsed(text: str, path: str, refuse: Refuse) -> Any:
    """Return the value of a string of JSON; `msgspec.UNSET` if it is faulty."""
    faults = list[Problem]()
    value = decode(text.encode(), faults.append)
    if faults:
        fault = faults[0].message.replace("the line", "the string")
        refuse(TOOL_CALL, path, f"the string is not JSON: {fault}")
        return msgspec.UNSET
    return value


def written(value: Any) -> str:
    """Return a value as the JSON of `Turn.tool_data`."""
    return json.dumps(value, ensure_ascii=False)
