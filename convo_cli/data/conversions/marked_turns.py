"""Turns whose speaker stands in an unusual place: beside the text, in a flag, before a colon."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from convo_cli.data.conversions.commands import jq_path, jq_string
from convo_cli.data.conversions.line_format import Format
from convo_cli.data.shapes.items.turn_keys import TEXT_KEYS, keys_of_turn
from convo_cli.wording import quoted

_FLAGS = {
    **dict.fromkeys(("is_human", "is_user", "isUser", "from_user", "fromUser", "fromMe"), True),
    **dict.fromkeys(("is_bot", "isBot", "from_bot", "is_assistant", "is_ai"), False),
}
"""Names of flags, and whether true means the user."""
_USERS = ("user", "human", "customer", "client", "usr")
_ASSISTANTS = ("assistant", "agent", "bot", "system", "sys", "model")
_FIRST = "the first speaker becomes the user"
_KEYS_OF_TEXT = ("dialogue", "dialog", "conversation", "transcript", "text")
_NAMED_LINE = re.compile(r"([^:\n]{1,40}): *\S[^\n]*")


def flagged_format(value: Mapping[str, Any]) -> Format | None:
    """Return the format of a line whose turns have a flag for their side: {"is_human": true, …}."""
    for key, turns in value.items():
        first = turns[0] if isinstance(turns, list) and turns else None
        if not isinstance(first, dict):
            continue
        flag = next((name for name in _FLAGS if isinstance(first.get(name), bool)), None)
        text = next((name for name in TEXT_KEYS if isinstance(first.get(name), str)), None)
        if flag is None or text is None:
            continue
        then = ("user", "assistant") if _FLAGS[flag] else ("assistant", "user")
        role = f'(if .{flag} then "{then[0]}" else "{then[1]}" end)'
        turn = f"{{role: {role}, content: {jq_path(text)}}}"
        what = f"a dialogue whose turns have the flag {quoted(flag)}"
        return Format(what, f"{{messages: [{jq_path(key)}[] | {turn}]}}")
    return None


def unnamed_format(value: Mapping[str, Any]) -> Format | None:
    """Return the format of a line whose turns have a text and no speaker."""
    for key, turns in value.items():
        is_list = isinstance(turns, list) and len(turns) > 1 and isinstance(turns[0], dict)
        if not is_list or not all(isinstance(turn, dict) for turn in turns):
            continue
        text = next((name for name in TEXT_KEYS if isinstance(turns[0].get(name), str)), None)
        is_named = any(keys_of_turn(tuple(turn))[0] is not None for turn in turns)
        if text is None or is_named or not all(isinstance(turn.get(text), str) for turn in turns):
            continue
        what = f"a dialogue whose turns have no speaker ({quoted(key)}, {quoted(text)})"
        program = f"{{turns: [{jq_path(key)}[]{jq_path(text)}]}}"
        return Format(what, program, note="the speakers alternate, and the user is first")
    return None


def paired_format(value: Mapping[str, Any]) -> Format | None:
    """Return the format of a line whose turns are pairs: ["agent", "Hello"] or [0, "Hello"]."""
    for key, turns in value.items():
        is_pairs = isinstance(turns, list) and len(turns) > 1
        if not is_pairs or not all(map(_is_named_text, turns)):
            continue
        names = [name for name, _ in turns]
        kinds = {str(name).casefold() for name in names}
        path, content = jq_path(key), "content: .[1]"
        what = f"a list of pairs of a speaker and a text ({quoted(key)})"
        user = next((name for name in _USERS if name in kinds), None)
        assistant = next((name for name in _ASSISTANTS if name in kinds), None)
        if user and assistant:
            roles = f'{{{jq_string(user)}: "user", {jq_string(assistant)}: "assistant"}}'
            role = f"({roles}[.[0] | ascii_downcase])"
            program = f"{{messages: [{path}[] | {{role: {role}, {content}}} | select(.role)]}}"
            return Format(what, program, note=f'keep the turns of "{user}" and "{assistant}"')
        if len(kinds) == 2 and len(names) > len(kinds):
            role = 'if .[0] == $first then "user" else "assistant" end'
            turn = f"{{role: ({role}), {content}}}"
            program = f"{path}[0][0] as $first | {{messages: [{path}[] | {turn}]}}"
            return Format(what, program, note=_FIRST)
    return None


def named_lines_format(value: Mapping[str, Any]) -> Format | None:
    """Return the format of a line with a text whose lines begin with names: "Ada: Hi"."""
    for key in _KEYS_OF_TEXT:
        text = value.get(key)
        lines = text.splitlines() if isinstance(text, str) else []
        names = [match[1] for line in lines if (match := _NAMED_LINE.fullmatch(line.rstrip()))]
        if len(lines) < 2 or len(names) < len(lines) or len(set(names)) == len(names) > 2:
            continue
        line = '"^(?<name>[^:]{1,40}): *(?<text>.*)$"'
        program = (
            f'[{jq_path(key)} | gsub("\\r"; "") | split("\\n")[] | select(test("[^\\\\s]"))] | '
            f"select(all(.[]; test({line}))) | map(capture({line})) | "
            "select((map(.name) | unique | length) == 2) | .[0].name as $first | "
            '{messages: map({role: (if .name == $first then "user" else "assistant" end), '
            "content: .text})}"
        )
        what = f"a whole dialogue in one text, whose lines begin with names ({quoted(key)})"
        note = f"keep dialogues of two people; {_FIRST}"
        return Format(what, program, note=note)
    return None


def _is_named_text(turn: Any) -> bool:
    is_pair = isinstance(turn, list) and len(turn) == 2 and isinstance(turn[1], str)
    return is_pair and isinstance(turn[0], (str, int)) and len(str(turn[0])) <= 20
