"""Places of keys and values in a config file or an option, for error messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from convo_cli.errors import ConfigError, ProblemDetail
from convo_cli.wording import on_one_line

KeyPath = tuple[str | int, ...]
"""The path of a value: ("training", "learning_rate"), or ("data", "train", 0) in a list."""

OPTION = "--set "
"""Prefix of the source of an override."""

SHOW_FORM = "`convo init-config` writes a config with every key explained"
MAX_SHOWN = 60
_BREAK = "\n  "


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a key or value."""

    source: str
    line: int = 0
    """1-based; 0 if there are no lines, as in an option."""
    column: int = 0
    text: str | None = None
    """The source of a scalar, with its quotes; None for anything else."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source

    @property
    def is_option(self) -> bool:
        return self.source.startswith(OPTION)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the value at ``path``."""

    place: Place
    path: KeyPath
    message: str
    hint: str = ""

    def __str__(self) -> str:
        # An option names its key itself.
        key = "" if self.place.is_option else f" {clipped(dotted(self.path))}".rstrip()
        shown = on_one_line(f"{self.place}{key}: {self.message}")
        # A command in a hint is on an indented line of its own; other breaks come from names.
        lines = [on_one_line(line) for line in self.hint.split(_BREAK)]
        return f"{shown}; {_BREAK.join(lines)}" if self.hint else shown

    def error(self, hint: str | None = None) -> ConfigError:
        """Return an error with this one problem and an optional hint."""
        detail = self.detail if hint is None else replace(self.detail, hint=hint)
        return ConfigError(str(self), hint=hint, problems=[detail])

    @property
    def key(self) -> str:
        """Dotted key; an option names it in its source."""
        source = self.place.source
        return source.removeprefix(OPTION) if self.place.is_option else dotted(self.path)

    @property
    def detail(self) -> ProblemDetail:
        """The problem as an object for `--json`; an option has no file and no line."""
        place = self.place
        return ProblemDetail(
            message=self.message,
            file=None if place.is_option else place.source,
            line=place.line or None,
            column=place.column or None,
            key=self.key or None,
            hint=self.hint or None,
        )


@dataclass(slots=True)
class Source:
    """The values as plain Python, and the places of keys and values by path."""

    value: Any = None
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def has(self, path: KeyPath) -> bool:
        """Return whether the key is written with a value other than null."""
        value = self.value
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return value is not None and path in self.keys

    def place_of_key(self, path: KeyPath) -> Place:
        """Return the place of the key, or of the innermost written section around it."""
        return _innermost(path, self.keys) or self.values[()]

    def place_of_value(self, path: KeyPath) -> Place:
        """Return the place of the value, or of the innermost written list or section around it."""
        return _innermost(path, self.values) or self.values[()]


def dotted(path: Iterable[str | int]) -> str:
    """Return the name of a key as people write it."""
    return ".".join(map(str, path))


def clipped(text: str) -> str:
    """Return the text on one line and shortened, for a message."""
    text = text if text.isprintable() else json.dumps(text)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _innermost(path: KeyPath, places: Mapping[KeyPath, Place]) -> Place | None:
    candidates = (places.get(path[:length]) for length in range(len(path), 0, -1))
    return next((place for place in candidates if place is not None), None)
