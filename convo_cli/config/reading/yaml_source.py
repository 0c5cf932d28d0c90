"""Strict reader of YAML 1.2 with the place of every key and value: mappings, lists and scalars.

It builds values from the parser's events in one pass, so that excessive depth and size are refused
early.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StreamMark, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from convo_cli.config.places import KeyPath, Place, Problem, Source, clipped
from convo_cli.config.reading.building import SourceBuilder, key_name
from convo_cli.errors import ConfigError

_IN_PLAIN_WORDS = (
    (
        "mapping values are not",
        "unexpected colon: the indentation is wrong, or the text needs quotes",
        False,
    ),
    ("could not find expected ':'", "a key needs a colon and a space after it", True),
    ("expected <block end>", "the indentation matches no line above", False),
    ("cannot start any token", "text that begins with this character needs quotes", False),
    ("expected ',' or", "a bracket that is never closed, or a comma is missing in it", True),
    ("end of stream", "a quote that is never closed", True),
)


def parse_yaml(text: str, source: str) -> Source:
    """Parse one YAML document; a duplicate key, alias, anchor or tag becomes a problem.

    Bad syntax raises ConfigError.
    """
    try:
        return _Reader(text, source).read()
    except MarkedYAMLError as error:
        raise _syntax_error(error, text, source) from None
    except (YAMLError, ValueError, OverflowError) as error:
        # The last two: an escape above U+10FFFF.
        message = f"not valid YAML: {' '.join(str(error).split())}"
        raise Problem(Place(source), (), message).error() from None


def _syntax_error(error: MarkedYAMLError, text: str, source: str) -> ConfigError:
    """Return the parser's finding, in plain words if it is common.

    The place of an unclosed bracket or quote is where it begins.
    """
    problem = f"{error.context}: {error.problem}" if error.context else str(error.problem)
    mark = error.problem_mark or error.context_mark
    for pattern, words, at_start in _IN_PLAIN_WORDS:
        if pattern in problem:
            problem = words
            mark = (at_start and error.context_mark) or mark
            break
    place = Place(source) if mark is None else _place(mark, source)
    line = next(islice(text.splitlines(), max(place.line - 1, 0), None), "")
    if "\t" in line[: len(line) - len(line.lstrip())]:
        problem = "a tab in the indentation; YAML needs spaces"
    return Problem(place, (), f"not valid YAML: {problem}").error()


class _Reader(SourceBuilder):
    """Reads the events of one document."""

    def __init__(self, text: str, source: str) -> None:
        super().__init__(source)
        self._events: Iterator[Event] = YAML(typ="safe", pure=True).parse(text)

    def read(self) -> Source:
        self._next()
        start = self._next()
        if isinstance(start, StreamEndEvent):
            return self.result
        if isinstance(start, DocumentStartEvent) and (start.version or start.tags):
            place = self._place(start)
            self.problem(place, (), "a % directive above this line is not allowed")
        self.result.value = self._value(self._next(), (), 1)
        self._next()
        end = self._next()
        if not isinstance(end, StreamEndEvent):
            message = "a second document starts here; a config is a single document"
            raise Problem(self._place(end), (), message).error()
        return self.result

    def _next(self) -> Event:
        self.count()
        return next(self._events)

    def _value(self, event: Event, path: KeyPath, depth: int) -> Any:
        place = self._place(event)
        self.require_depth(place, depth)
        if isinstance(event, AliasEvent):
            alias = f"an alias (*{clipped(event.anchor)})"
            self.problem(place, path, f"{alias} is not allowed; write the value out")
            return None
        assert isinstance(event, ScalarEvent | CollectionStartEvent)
        self._refuse_decoration(event, path)
        if isinstance(event, ScalarEvent):
            read = self.plain if event.style is None else self.quoted
            return read(path, place, event.value)
        self.result.values[path] = place
        if isinstance(event, MappingStartEvent):
            return self._mapping(path, depth)
        return self._list(path, depth)

    def _mapping(self, path: KeyPath, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            name = key_name(event.value) if isinstance(event, ScalarEvent) else None
            if name is None:
                self.problem(self._place(event), path, "a key must be plain text")
                self._value(event, (*path, "?"), depth + 1)
                self._value(self._next(), (*path, "?"), depth + 1)
                continue
            assert isinstance(event, ScalarEvent)
            key = (*path, name)
            self._refuse_decoration(event, key)
            self.key(key, self._place(event), mapping)
            mapping[name] = self._value(self._next(), key, depth + 1)
        return mapping

    def _list(self, path: KeyPath, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            items.append(self._value(event, (*path, len(items)), depth + 1))
        return items

    def _refuse_decoration(self, event: ScalarEvent | CollectionStartEvent, path: KeyPath) -> None:
        place = self._place(event)
        if event.anchor is not None:
            anchor = f"an anchor (&{clipped(event.anchor)})"
            self.problem(place, path, f"{anchor} is not allowed; write the value out")
        if event.tag is not None:
            tag = clipped(event.tag.replace("tag:yaml.org,2002:", "!!"))
            self.problem(place, path, f"a tag ({tag}) is not allowed; write the plain value")

    def _place(self, event: Event) -> Place:
        return _place(event.start_mark, self.source)


def _place(mark: StreamMark, source: str) -> Place:
    return Place(source, mark.line + 1, mark.column + 1)
