"""Parts of a line in the order of the dialogue, and the functions that read them from its keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from convo_cli.data.conversions.lines import advice_for_text
from convo_cli.data.dialogue import Role
from convo_cli.data.problems import Problem, kind_of
from convo_cli.data.shapes.items.turn_keys import is_parts
from convo_cli.data.strict_json.embedded import embedded_json


class Text(NamedTuple):
    """One turn. ``value`` is any JSON value (strings and parts are accepted), ``path`` its path."""

    role: Role
    value: Any
    path: str
    is_reply: bool = False
    """True for the only reply of a line: keys of the line may hold its reasoning."""


Strings: TypeAlias = Literal["alternate", "end on user", "end on assistant", "refuse"]
"""Speakers of a list of strings: they alternate from data.first_speaker on or up to the last."""


class TurnList(NamedTuple):
    """A list of turns: strings with alternating speakers, objects, or [user, assistant] pairs."""

    value: list[Any]
    path: str
    strings: Strings = "alternate"
    is_nested: bool = False
    """True if the list may hold several lists of turns, which follow each other."""
    code: str = "not-a-turn"
    """Code of the problem of an item that is no turn."""
    text_path: str = ""
    """Path of the string that holds the list as JSON; empty if there is none."""


Part: TypeAlias = Text | TurnList | Problem
ReadShape: TypeAlias = Callable[[Mapping[str, Any]], Iterator[Part]]
"""Yields the parts of a line in the order of the dialogue, with a Problem for each unreadable part.

It decides by keys and by types of values, never by a text or a number, because `checks.bulk` judges
only one of the lines that differ in nothing else (``history`` may be 0). Texts may be empty or
white space.
"""


def turns_under(key: str, *, is_nested: bool = False) -> ReadShape:
    """Return a function that reads the list of turns under the key."""

    def read(line: Mapping[str, Any]) -> Iterator[Part]:
        path = f"$.{key}"
        problems: list[Problem] = []
        turns = embedded_json(line[key], "[", path, problems.append)
        yield from problems
        if isinstance(turns, list):
            text_path = "" if turns is line[key] else path
            yield TurnList(turns, path, is_nested=is_nested, text_path=text_path)
        elif not problems:
            message = f'"{key}" is {kind_of(turns)}, not a list of turns'
            advice = advice_for_text(key, turns) if isinstance(turns, str) else ""
            code = "other-format" if advice else "unknown-shape"
            yield Problem(code, message, path, advice=advice)

    return read


def pair_under(question: str, answer: str, extras: tuple[str, ...] = ()) -> ReadShape:
    """Return a function that reads the question and the answer under two keys.

    The texts under ``extras`` follow the question after an empty line.
    """
    strings: Strings = "end on user" if question == "context" else "refuse"

    def read(line: Mapping[str, Any]) -> Iterator[Part]:
        yield from _history(line.get("history"))
        asked = line[question]
        for key in extras:
            extra = line.get(key)
            if isinstance(asked, str) and isinstance(extra, str):
                asked = _joined(asked, extra)
            elif isinstance(asked, str) and extra is not None:
                message = f"the {key} is {kind_of(extra)}, not a string"
                yield Problem("text-not-string", message, f"$.{key}")
        if _is_turns(asked):
            yield TurnList(asked, f"$.{question}", strings)
        else:
            yield Text("user", asked, f"$.{question}")
        if _is_turns(line[answer]):
            yield TurnList(line[answer], f"$.{answer}", "refuse")
        else:
            yield Text("assistant", line[answer], f"$.{answer}", is_reply=True)

    return read


def _joined(asked: str, extra: str) -> str:
    """Return both texts around an empty line; only one if the other is white space."""
    if not asked.strip() or not extra.strip():
        return extra if extra.strip() else asked
    return f"{asked.rstrip()}\n\n{extra.lstrip()}"


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and not is_parts(value)


def _history(history: Any) -> Iterator[Part]:
    """Yield the turns before the last question."""
    path = "$.history"
    problems: list[Problem] = []
    turns = embedded_json(history, "[", path, problems.append)
    yield from problems
    if turns and isinstance(turns, list):
        text_path = "" if turns is history else path
        yield TurnList(turns, path, "end on assistant", code="history", text_path=text_path)
    elif turns and not problems:
        message = f"the history is {kind_of(turns)}, not a list of [question, answer] pairs"
        yield Problem("history", message, path)
