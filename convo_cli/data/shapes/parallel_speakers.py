"""Speakers in a list beside a list of texts: ``{"dialogue": ["Hi", …], "speakers": ["Ann", …]}``.

The texts alternate between the roles. A line whose speakers do not alternate is refused, because
its roles would be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convo_cli.data.conversions.commands import Conversion, by_jq, jq_path
from convo_cli.data.dialogue import Role
from convo_cli.data.problems import Problem, member
from convo_cli.data.shapes.parts import Part, TurnList
from convo_cli.wording import counted, quoted

_KEYS = ("speakers", "roles")


def speakers_beside(line: Mapping[str, Any], parts: Sequence[Part]) -> str | None:
    """Return the key of the speakers beside the only list of texts of a line; None without one."""
    if len(parts) != 1 or not isinstance(parts[0], TurnList) or not _are_texts(parts[0].value):
        return None
    return next((key for key in _KEYS if _are_texts(line.get(key))), None)


def speaker_problem(
    names: Sequence[str], texts: TurnList, key: str, roles: Mapping[str, Role], first: Role
) -> Problem | None:
    """Return the problem if the speakers under ``key`` contradict the order of the texts."""
    of_texts = texts.path.removeprefix("$.")
    if len(names) != len(texts.value):
        counts = f"{counted(len(texts.value), 'text')}, but {counted(len(names), 'speaker')}"
        message = f"the line has {counts} under {quoted(key)}"
        advice = "give each text one speaker, or remove the speakers if the texts alternate"
        return Problem("mixed-turns", message, member("$", key), advice=advice)
    stated = [roles.get(name.casefold()) for name in names]
    if None not in stated:
        other: Role = "assistant" if first == "user" else "user"
        is_right = stated == [(first, other)[index % 2] for index in range(len(names))]
    else:
        is_right = all(
            name == names[index % 2] != names[1 - index % 2]
            for index, name in enumerate(names)
            if len(names) > 1
        )
    if is_right:
        return None
    message = f"the speakers under {quoted(key)} do not alternate, but the texts would"
    command = _conversion(names, of_texts, key, is_of_roles=None not in stated)
    return Problem("other-format", message, member("$", key), advice=command)


def _conversion(names: Sequence[str], texts: str, key: str, *, is_of_roles: bool) -> Conversion:
    """Return a command that gives each text its speaker; of two names, the first is the user."""
    pairs = f"[[{jq_path(key)}, {jq_path(texts)}] | transpose[]"
    if is_of_roles or len(set(names)) > 2:
        return by_jq(
            f"{{messages: {pairs} | {{role: .[0], content: .[1]}}]}}",
            "give each text its speaker, then check that file",
        )
    role = '(if .[0] == $first then "user" else "assistant" end)'
    return by_jq(
        f"{jq_path(key)}[0] as $first | {{messages: {pairs} | {{role: {role}, content: .[1]}}]}}",
        "give each text its speaker, of whom the first is the user",
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
