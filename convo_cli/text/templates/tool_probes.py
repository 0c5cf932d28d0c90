"""Knowledge of a chat template about tools, found by rendering probes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError
from convo_cli.text.bounded.rendering import Rendered

Ask: TypeAlias = Callable[[Sequence[Turn], bool], Rendered | DataError]
"""Renders a dialogue, with the generation prompt or without."""
_NAMES = {"tools": "the definitions of tools", "tool": "the result of a tool call"}


def _call(*names: str) -> Turn:
    functions = [{"name": name, "arguments": {"probedkey": f"value {name}"}} for name in names]
    calls = [
        {"id": f"probe{index:04}", "type": "function", "function": function}
        for index, function in enumerate(functions)
    ]
    return Turn("assistant", "", tool_data=json.dumps({"tool_calls": calls}))


def _result(index: int, name: str) -> Turn:
    data = json.dumps({"tool_call_id": f"probe{index:04}", "name": name})
    return Turn("tool", f"probedresult{index}", tool_data=data)


_PARAMETERS = {"type": "object", "properties": {"probedkey": {"type": "string"}}}
_FUNCTION = {"name": "probedtool", "description": "probeddescription", "parameters": _PARAMETERS}
_DEFINED = Turn("tools", json.dumps([{"type": "function", "function": _FUNCTION}]))
_ASKED, _ANSWERED = Turn("user", "a"), Turn("assistant", "b")
_ONE = (_ASKED, _call("probedone"), _result(0, "probedone"), _ANSWERED)
_TWO_RESULTS = (_result(0, "probedone"), _result(1, "probedtwo"))
_TWO = (_ASKED, _call("probedone", "probedtwo"), *_TWO_RESULTS, _ANSWERED)
_IN_ONE = ("probedone", "probedkey", "value probedone", "probedresult0")
_IN_TWO = (*_IN_ONE, "probedtwo", "value probedtwo", "probedresult1")


def name_of(turn: Turn) -> str:
    """Return the words for a turn with tools."""
    return _NAMES.get(turn.role, "a tool call")


def no_place_for(turn: Turn, template: str) -> DataError:
    """Return the error of a template that has no place for a turn with tools."""
    return DataError(f"{template} has no place for {name_of(turn)}")


def calls_in(turn: Turn) -> list[Any]:
    """Return the calls beside the text of a turn."""
    return list(json.loads(turn.tool_data).get("tool_calls", ())) if turn.is_call else []


class ToolKnowledge:
    """What a template writes of definitions, calls and results."""

    def __init__(self, ask: Ask) -> None:
        probes = ((_DEFINED, *_ONE), _ONE, (_DEFINED, _ASKED, _ANSWERED), _TWO)
        answers = [ask(probe, False) for probe in probes]
        described, plain, self._defined, self._parallel = answers
        self._called = described if isinstance(plain, DataError) else plain
        self.own_text = "\n".join(one.text for one in answers if isinstance(one, Rendered))

    def require(self, turns: Sequence[Turn]) -> None:
        """Raise DataError if the template leaves a kind of turn out that the dialogue has."""
        for turn in turns:
            answer = self._called
            expected: tuple[str, ...] = _IN_ONE
            if turn.role == "tools":
                answer, expected = self._defined, ("probedtool", "probeddescription", "probedkey")
            elif len(calls_in(turn)) > 1:
                answer, expected = self._parallel, _IN_TWO
            if not turn.uses_tools:
                continue
            if isinstance(answer, DataError):
                raise DataError(f"{no_place_for(turn, 'the chat template')}: {answer}")
            if not all(part in answer.text for part in expected):
                raise no_place_for(turn, "the chat template")
