"""Steps from a decoded line to its columns, and everything that lies beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from convo_cli.config.column_paths import PathSteps, steps_of
from convo_cli.data.problems import member
from convo_cli.data.shapes.items.turn_keys import AUTHOR_KEYS, SPEAKER_KEYS

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


@lru_cache(maxsize=16)
def columns_of(config: ColumnsConfig) -> Columns | None:
    """Return the steps of all columns; None if nothing is mapped."""
    paths = [getattr(config, name) for name in Columns._fields]
    if all(path is None for path in paths):
        return None
    return Columns(*(None if path is None else steps_of(path) for path in paths))


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
