"""Shapes of a line that is a JSON object: `SHAPES` names each, with the function that reads it.

    {"messages": …} {"turns": …} {"conversations": …}      a list of turns
    {"prompt": …, "completion": …}                         texts, or lists of turns with roles
    {"instruction": …, "input": …, "output": …}            "input" is optional

The last two may have "history": [[question, answer], …], the earlier turns. A new shape needs a
function and an entry in this module, and nothing else: masks, reasoning, unread keys, validation
and repair work for every shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from convo_cli.data.dialogue import Role
from convo_cli.data.problems import Problem, kind_of


class Text(NamedTuple):
    """One turn. ``value`` is any JSON value (only a string is accepted), ``path`` its path."""

    role: Role
    value: Any
    path: str
    is_reply: bool = False
    """True for the only reply of a line: keys of the line may hold its reasoning."""


class TurnList(NamedTuple):
    """A list of turns: strings with alternating speakers, or objects with a speaker and a text."""

    value: list[Any]
    path: str
    needs_speakers: bool = False
    """True if strings, which have no speaker, are refused."""


Part: TypeAlias = Text | TurnList | Problem
ReadShape: TypeAlias = Callable[[Mapping[str, Any]], Iterator[Part]]
"""Yields the parts of a line in the order of the dialogue, with a Problem for each unreadable part.

It decides by keys and by types of values, never by a text or a number, because `checks.bulk` judges
only one of the lines that differ in nothing else (``history`` may be 0). Texts may be empty or
white space.
"""


class Shape(NamedTuple):
    """A shape: ``read`` reads lines that have all of ``keys`` and any of ``optional``."""

    keys: tuple[str, ...]
    read: ReadShape
    optional: tuple[str, ...] = ()


def shape_of(value: Any) -> str | None:
    """Return the name of the shape of a decoded line; None for an unknown shape."""
    if isinstance(value, dict):
        known = (name for name, shape in SHAPES.items() if all(key in value for key in shape.keys))
        return next(known, None)
    if isinstance(value, list):
        return "list of turns" if any(isinstance(item, dict) for item in value) else "list of texts"
    return None


def is_array_of_dialogues(value: Any) -> bool:
    """Return whether a decoded line holds several dialogues instead of one."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(item, list) for item in value) or all(
        isinstance(item, dict) and shape_of(item) for item in value
    )


def _turns_under(key: str) -> ReadShape:
    def read(line: Mapping[str, Any]) -> Iterator[Part]:
        turns = line[key]
        if isinstance(turns, list):
            yield TurnList(turns, f"$.{key}")
        else:
            message = f'"{key}" is {kind_of(turns)}, not a list of turns'
            yield Problem("unknown-shape", message, f"$.{key}")

    return read


def _prompt_and_completion(line: Mapping[str, Any]) -> Iterator[Part]:
    yield from _history(line.get("history"))
    prompt, completion = line["prompt"], line["completion"]
    if isinstance(prompt, list):
        yield TurnList(prompt, "$.prompt", needs_speakers=True)
    else:
        yield Text("user", prompt, "$.prompt")
    if isinstance(completion, list):
        yield TurnList(completion, "$.completion", needs_speakers=True)
    else:
        yield Text("assistant", completion, "$.completion", is_reply=True)


def _instruction_and_output(line: Mapping[str, Any]) -> Iterator[Part]:
    yield from _history(line.get("history"))
    instruction, extra = line["instruction"], line.get("input")
    if isinstance(instruction, str) and isinstance(extra, str):
        instruction = "\n\n".join(part for part in (instruction.strip(), extra.strip()) if part)
    elif isinstance(instruction, str) and extra is not None:
        yield Problem("text-not-string", f"the input is {kind_of(extra)}, not a string", "$.input")
    yield Text("user", instruction, "$.instruction")
    yield Text("assistant", line["output"], "$.output", is_reply=True)


def _history(pairs: Any) -> Iterator[Part]:
    """Yield the questions and answers before the last question."""
    if pairs and not isinstance(pairs, list):
        message = f"the history is {kind_of(pairs)}, not a list of [question, answer] pairs"
        yield Problem("history", message, "$.history")
        return
    for index, pair in enumerate(pairs or ()):
        path = f"$.history[{index}]"
        if isinstance(pair, list) and len(pair) == 2:
            yield Text("user", pair[0], f"{path}[0]")
            yield Text("assistant", pair[1], f"{path}[1]")
        else:
            what = f"a list of {len(pair)}" if isinstance(pair, list) else kind_of(pair)
            yield Problem("history", f"the entry is {what}, not a [question, answer] pair", path)


SHAPES: Mapping[str, Shape] = {
    "messages": Shape(("messages",), _turns_under("messages")),
    "conversations": Shape(("conversations",), _turns_under("conversations")),
    "turns": Shape(("turns",), _turns_under("turns")),
    "prompt + completion": Shape(("prompt", "completion"), _prompt_and_completion, ("history",)),
    "instruction + output": Shape(
        ("instruction", "output"), _instruction_and_output, ("input", "history")
    ),
}
"""Every shape by its name in reports. A line with the keys of several shapes has the first one."""
