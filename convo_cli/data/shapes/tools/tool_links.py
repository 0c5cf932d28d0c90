"""Links between tool calls and their results: which result belongs to which call.

Ids are replaced by numbers, because some chat templates accept only ids of nine letters and digits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from convo_cli.data.dialogue import Turn
from convo_cli.data.shapes.collector import LocatedTurn
from convo_cli.data.shapes.masks import Refuse
from convo_cli.data.shapes.tools.tool_calls import TOOL_CALL, written
from convo_cli.wording import quoted

WRITTEN_CALL = "{}"
"""The `Turn.tool_data` of an assistant turn whose call is a part of its text."""


class Call(NamedTuple):
    """A call whose result has not come yet."""

    given_id: str | None
    new_id: str
    name: str


def linked(turns: Sequence[LocatedTurn], refuse: Refuse) -> list[LocatedTurn]:
    """Number the calls, give each result the id of its call, and join calls that follow each other.

    A result without an id answers the first open call of its name, else the first open call. The
    assistant's turn before a result is a call even if it is only written in its text.
    """
    if not any(turn.uses_tools for _, turn in turns):
        return list(turns)
    found = list[LocatedTurn]()
    calls = list[Call]()  # in order
    is_open = list[bool]()
    for path, turn in turns:
        if turn.role == "tool":
            found.append((path, _answering(path, turn, found, calls, is_open, refuse)))
        elif turn.role == "assistant" and turn.tool_data:
            data = json.loads(turn.tool_data)
            for call in data.get("tool_calls", ()):
                name = call["function"]["name"]
                calls.append(Call(call["id"], f"call{len(calls):05}", name))
                is_open.append(True)
                call["id"] = calls[-1].new_id
            before = found[-1][1] if found else None
            if before and not turn.text and before.is_call:
                first, more = (
                    one.get("tool_calls", []) for one in (json.loads(before.tool_data), data)
                )
                data = {"tool_calls": first + more}
                found[-1] = found[-1][0], replace(before, tool_data=written(data))
            else:
                found.append((path, replace(turn, tool_data=written(data))))
        else:
            found.append((path, turn))
    return found


def _answering(
    path: str,
    turn: Turn,
    found: list[LocatedTurn],
    calls: Sequence[Call],
    is_open: list[bool],
    refuse: Refuse,
) -> Turn:
    """Return the result with the id and the name of its call."""
    before = found[-1][1] if found else None
    if before is None or before.role not in ("assistant", "tool"):
        refuse(TOOL_CALL, path, "the tool result follows no tool call")
        return turn
    if before.role == "assistant" and not before.tool_data:
        found[-1] = found[-1][0], replace(before, tool_data=WRITTEN_CALL)
    given: dict[str, str] = json.loads(turn.tool_data)
    given_id, name = given.get("tool_call_id"), given.get("name")
    numbers = range(len(calls))
    if given_id is not None and any(call.given_id for call in calls):
        number = next((n for n in reversed(numbers) if calls[n].given_id == given_id), None)
        if number is None:
            message = (
                f"the tool result answers {quoted(given_id)}, but no call before it has this id"
            )
            refuse(TOOL_CALL, path, message)
    else:
        waiting = [n for n in numbers if is_open[n]]
        named = [n for n in waiting if calls[n].name == name]
        number = next(iter(named or waiting), None)
    if number is None:
        return replace(turn, tool_data=written({"name": name} if name else {}))
    is_open[number] = False
    link = {"tool_call_id": calls[number].new_id, "name": calls[number].name}
    return replace(turn, tool_data=written(link))
