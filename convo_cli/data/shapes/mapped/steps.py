"""Steps from a decoded line to its columns, and everything that lies beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from convo_cli.config.column_paths import PathSteps, steps_of
from convo_cli.data.problems import member
from convo_cli.data.shapes.items.turn_keys import AUTHOR_KEYS, SPEAKER_KEYS
from convo_cli.data.shapes.table import SHAPES, shape_of

if TYPE_CHECKING:
    from convo_cli.config.schema import ColumnsConfig


class Columns(NamedTuple):
    """The steps to each column; None for one that is not mapped."""

    turns: PathSteps | None
    speaker: PathSteps | None
    text: PathSteps | None
    user: PathSteps | None
    assistant: PathSteps | None
    system: PathSteps | None
    history: PathSteps | None


NO_COLUMNS = Columns(*[None] * len(Columns._fields))


@lru_cache(maxsize=16)
def columns_of(config: ColumnsConfig) -> Columns | None:
    """Return the steps of all columns; None if nothing is mapped."""
    paths = {name: getattr(config, name) for name in Columns._fields}
    return columns_at({name: path for name, path in paths.items() if path is not None})


def columns_at(paths: Mapping[str, str]) -> Columns | None:
    """Return the steps to the columns with these paths; None without a path."""
    steps = {name: steps_of(path) for name, path in paths.items()}
    return Columns(*map(steps.get, Columns._fields)) if steps else None


def turn_lists(value: Any, columns: Columns | None) -> list[list[Any]]:
    """Return the lists of turns in a decoded line."""
    if columns is not None and columns.turns is not None:
        try:
            found = [value_at(value, columns.turns)]
        except LookupError:
            found = []
    elif columns is not None and columns.user is not None:
        found = []
    elif isinstance(value, list):
        found = [value]
    else:
        shape = SHAPES.get(shape_of(value) or "")
        found = [value[key] for key in shape.keys] if shape else []
    return [turns for turns in found if isinstance(turns, list)]


def mapped_speaker_keys(config: ColumnsConfig) -> frozenset[str]:
    """Return the keys that may hold the name of a speaker in mapped lines; empty without them."""
    if (columns := columns_of(config)) is None:
        return frozenset()
    mapped = columns.speaker[-1:] if columns.speaker else ()
    named = (key for key in mapped if isinstance(key, str))
    return frozenset({*SPEAKER_KEYS, *AUTHOR_KEYS, *named})


def value_at(value: Any, steps: PathSteps) -> Any:
    """Return the value at the end of the steps; LookupError if there is none."""
    for step in steps:
        if isinstance(value, dict if isinstance(step, str) else list):
            value = value[step]  # type: ignore[index]
        else:
            raise KeyError(step)
    return value


def path_of(path: str, steps: PathSteps) -> str:
    """Return the path of the value at the end of the steps from ``path``."""
    for step in steps:
        path = f"{path}[{step}]" if isinstance(step, int) else member(path, step)
    return path


def beside(
    value: Any, path: str, read: Sequence[PathSteps], key: str
) -> Iterator[tuple[str, str, Any]]:
    """Yield path, key and value of everything in a value that none of the steps read."""
    if () in read:
        return
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
    for step, item in items:
        name = step if isinstance(step, str) else key
        at = path_of(path, (step,))
        if inner := [steps[1:] for steps in read if steps[0] == step]:
            yield from beside(item, at, inner, name)
        else:
            yield at, name, item
