"""Shapes of a line that is a JSON object: `SHAPES` names each, with the function that reads it.

`LISTS` hold a list of turns under one key, such as {"messages": …}. `PAIRS` hold a question and its
answer under two keys, such as {"prompt": …, "completion": …}, with optional keys. Each value is a
text or a list of turns with roles. A new shape is one entry in one of them, or an entry of its own
in `SHAPES`: masks, reasoning, unread keys, validation and repair work for every shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from convo_cli.data.shapes.items.turn_keys import LISTS, is_turn
from convo_cli.data.shapes.parts import ReadShape, pair_under, turns_under
from convo_cli.data.strict_json.embedded import begins_as_json

COMMON_LISTS = ("contents", "utterances", "chat", "data")
"""Keys of many meanings: their list is the dialogue if it begins with a turn."""
NESTED_LISTS = ("conversation", "dialogue", "dialog")
"""Keys of one conversation, whose list may hold several lists: the exchanges of ParlAI."""

_EXTRAS = ("input", "context")
PAIRS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("prompt", "completion"): (),
    ("instruction", "output"): ("input",),
    ("instruction", "response"): _EXTRAS,
    ("instruction", "completion"): _EXTRAS,
    ("instruction", "answer"): _EXTRAS,
    ("question", "answer"): ("context",),
    ("question", "response"): ("context",),
    ("query", "response"): ("context",),
    ("query", "answer"): ("context",),
    ("user", "assistant"): (),
    ("user", "bot"): (),
    ("human", "assistant"): (),
    ("human", "bot"): (),
    ("prompt", "response"): _EXTRAS,
    ("prompt", "output"): _EXTRAS,
    ("prompt", "answer"): _EXTRAS,
    ("input", "output"): (),
    ("input", "response"): (),
    ("context", "response"): (),
}
"""Keys of a question and its answer, with the keys whose texts follow the question."""
SYSTEM_KEYS = ("system", "system_prompt", "system_instruction", "systemInstruction")
"""Keys of the system text beside any shape."""
_NAMES = tuple(pair for pair in PAIRS if pair[0] in ("user", "human"))
"""Pairs whose keys name the speakers: a list of them is one dialogue, as a list of turns."""


class Shape(NamedTuple):
    """A shape: ``read`` reads lines that have all of ``keys`` and any of ``optional``."""

    keys: tuple[str, ...]
    read: ReadShape
    optional: tuple[str, ...] = ()
    is_common: bool = False
    """True if the keys alone do not make a line a dialogue; their values must hold turns."""


def _lists(keys: tuple[str, ...], *, is_common: bool) -> Iterator[tuple[str, Shape]]:
    for key in keys:
        read = turns_under(key, is_nested=key in NESTED_LISTS)
        yield key, Shape((key,), read, is_common=is_common)


SHAPES: Mapping[str, Shape] = {
    **dict(_lists(LISTS, is_common=False)),
    **{
        " + ".join(keys): Shape(keys, pair_under(*keys, extras), (*extras, "history"))
        for keys, extras in PAIRS.items()
    },
    **dict(_lists(COMMON_LISTS, is_common=True)),
}
"""Every shape by its name in reports.

A line with the keys of several shapes has the first one whose values may hold turns or texts.
"""


def shape_of(value: Any) -> str | None:
    """Return the name of the shape of a decoded line; None for an unknown shape."""
    if isinstance(value, list):
        return "list of turns" if any(isinstance(item, dict) for item in value) else "list of texts"
    if not isinstance(value, dict):
        return None
    known = _shapes_with(tuple(value))
    for name in known:
        if all(_may_hold(value[key], SHAPES[name]) for key in SHAPES[name].keys):
            return name
    return next((name for name in known if _is_named(value, SHAPES[name])), None)


def holds_dialogue(value: Any, shape: str | None) -> bool:
    """Return whether a line of this shape has a list, or a text in JSON, where it needs a list."""
    if shape is None or not isinstance(value, dict) or len(SHAPES[shape].keys) > 1:
        return shape is not None
    turns = value[SHAPES[shape].keys[0]]
    return isinstance(turns, list) or (isinstance(turns, str) and begins_as_json(turns))


@lru_cache(maxsize=1024)
def _shapes_with(keys: tuple[str, ...]) -> list[str]:
    return [name for name, shape in SHAPES.items() if all(key in keys for key in shape.keys)]


def is_array_of_dialogues(value: Any, *, is_file: bool = False) -> bool:
    """Return whether a decoded line holds several dialogues instead of one.

    On a line, pairs of [user, assistant] texts, and objects whose keys name the speakers, are one
    dialogue; in a file that is one JSON value (``is_file``), each of them is a dialogue.
    """
    if not isinstance(value, list) or not value:
        return False
    if all(isinstance(item, list) for item in value):
        return is_file or not is_list_of_pairs(value)
    shapes = {None if is_turn(item) or isinstance(item, list) else shape_of(item) for item in value}
    if is_file or None in shapes:
        return None not in shapes
    return any(SHAPES[str(name)].keys not in _NAMES for name in shapes)


def is_list_of_pairs(value: list[Any]) -> bool:
    """Return whether each item is a list of two texts, of which one may be null."""
    return all(
        isinstance(item, list)
        and len(item) == 2
        and any(isinstance(text, str) for text in item)
        and all(text is None or isinstance(text, str) for text in item)
        for item in value
    )


def _may_hold(value: Any, shape: Shape) -> bool:
    """Return whether the value of a key of the shape can be turns or a text, by its type alone."""
    if len(shape.keys) > 1:
        return value is not None
    return isinstance(value, list) and not (shape.is_common and not _begins_with_a_turn(value))


def _begins_with_a_turn(items: list[Any]) -> bool:
    first = items[0] if items else None
    if not isinstance(first, dict):
        return isinstance(first, (str, list))
    is_named = any(len(first) == 1 and name in first for pair in _NAMES for name in pair)
    return is_named or is_turn(first) or is_turn(first.get("message")) or bool(pair_keys(first))


def pair_keys(value: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the keys of the question and the answer in an object; None if it has none."""
    return next((keys for keys in PAIRS if keys[0] in value and keys[1] in value), None)


def _is_named(line: Mapping[str, Any], shape: Shape) -> bool:
    """Return whether a line whose values fit no shape is read, and refused, as this one."""
    if not shape.is_common:
        return True
    value = line[shape.keys[0]]
    return isinstance(value, str) and begins_as_json(value)
