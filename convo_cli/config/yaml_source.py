"""Strict reader of YAML 1.2 with the place of every key and value: only plain mappings, lists and
scalars.

It builds values from the parser's events in one pass, so that excessive depth and size are refused
before that.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
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
from ruamel.yaml.nodes import ScalarNode

from convo_cli.config.places import SHOW_FORM, KeyPath, Place, Problem, Source, clipped
from convo_cli.errors import ConfigError, typeable

MAX_BYTES = 2**20
MAX_DEPTH = 20
MAX_EVENTS = 20_000
MAX_NUMBER_LENGTH = 100

NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that text files do not contain: controls except tab and line ends, and halves of
surrogate pairs.
"""

_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair, written as an escape
_YAML = YAML(typ="safe", pure=True)
_TYPES = {
    "tag:yaml.org,2002:null": _YAML.constructor.construct_yaml_null,
    "tag:yaml.org,2002:bool": _YAML.constructor.construct_yaml_bool,
    "tag:yaml.org,2002:int": _YAML.constructor.construct_yaml_int,
    "tag:yaml.org,2002:float": _YAML.constructor.construct_yaml_float,
}
_IN_PLAIN_WORDS = (
    (
        "mapping values are not",
        "unexpected colon; wrong indentation, or text with a colon lacks quotes",
        False,
    ),
    ("could not find expected ':'", "a key needs a colon and a space after it", True),
    ("expected <block end>", "the indentation fits no line above", False),
    ("cannot start any token", "text that begins with this character needs quotes", False),
    ("expected ',' or", "a bracket that is never closed, or a comma is missing in it", True),
    ("end of stream", "a quote that is never closed", True),
)
_JSON = re.compile(r"\{|\[\s*([\[{\"]|$)")
_TOML = re.compile(r"\[[\w.-]+\]|[\w.-]+\s*=")


def plain_value(text: str) -> Any:
    """Return the YAML 1.2 value of a text without quotes: None, a bool, a number, or the text
    itself.
    """
    tag = str(_YAML.resolver.resolve(ScalarNode, text, (True, False)))
    return (
        _TYPES[tag](ScalarNode(tag, text))
        if tag in _TYPES and len(text) <= MAX_NUMBER_LENGTH
        else text
    )


def read_text(path: Path, opener: Callable[[str, int], int] | None = None) -> str:
    """Read a small UTF-8 text file; the error for any other file names its kind."""
    try:
        with open(path, "rb", opener=opener) as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file", hint=f"convo init-config -o {typeable(path)}"
        ) from None
    except IsADirectoryError:
        inside = path / "config.yaml"
        hint = f"try {inside}" if inside.is_file() else SHOW_FORM
        raise ConfigError(f"{path}: this is a directory, not a config file", hint=hint) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"{path}: larger than {MAX_BYTES:,} bytes; a config has some thousand", hint=SHOW_FORM
        )
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(
            f"{path}: UTF-16 text, as PowerShell's > writes it; a config is UTF-8",
            hint=f"write it without >: convo init-config -o {typeable(path)}",
        )
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _line_and_column(content[: error.start].decode("utf-8"))
        raise ConfigError(
            f"{path}:{line}:{column}: byte 0x{content[error.start]:02x} is not UTF-8 text"
        ) from None
    if found := NOT_TEXT.search(text):
        line, column = _line_and_column(text[: found.start()])
        raise ConfigError(
            f"{path}:{line}:{column}: control character U+{ord(found[0]):04X}; a config is plain "
            "text"
        )
    return text


def parse_config(text: str, source: str) -> Source:
    """Parse a config file: exactly one mapping, with the likely mistakes named."""
    lines = (line.strip() for line in text.splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "")
    if not first:
        raise ConfigError(f"{source}: the file is empty", hint=SHOW_FORM)
    language = "JSON" if _JSON.match(first) else "TOML" if _TOML.match(first) else None
    if language is not None:
        raise ConfigError(f"{source}: this is {language}; a config is YAML", hint=SHOW_FORM)
    parsed = parse_yaml(text, source)
    if not isinstance(parsed.value, dict):
        found = "a list" if isinstance(parsed.value, list) else "a single value"
        raise ConfigError(f"{source}: found {found}; a config is keys with values", hint=SHOW_FORM)
    return parsed


def parse_yaml(text: str, source: str) -> Source:
    """Parse one YAML document; a duplicate key, alias, anchor or tag becomes a problem, bad syntax
    is raised.
    """
    try:
        return _Builder(text, source).build()
    except MarkedYAMLError as error:
        raise _syntax_error(error, text, source) from None
    except (
        YAMLError,
        ValueError,
        OverflowError,
    ) as error:  # The last two: an escape above U+10FFFF.
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None


def _syntax_error(error: MarkedYAMLError, text: str, source: str) -> ConfigError:
    """Return the parser's finding, in plain words if it is common; an unclosed item is located at
    its start.
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
    return ConfigError(f"{place}: not valid YAML: {problem}")


class _Builder:
    """Turns the events of one document into a Source."""

    def __init__(self, text: str, source: str) -> None:
        self._events: Iterator[Event] = YAML(typ="safe", pure=True).parse(text)
        self._num_events = 0
        self._source = source
        self._result = Source()

    def build(self) -> Source:
        self._next()
        start = self._next()
        if isinstance(start, StreamEndEvent):
            return self._result
        if isinstance(start, DocumentStartEvent) and (start.version or start.tags):
            self._problem(start, (), "a % directive above this line is not allowed")
        self._result.value = self._value(self._next(), (), 1)
        self._next()
        end = self._next()
        if not isinstance(end, StreamEndEvent):
            raise ConfigError(
                f"{_place(end.start_mark, self._source)}: a second document starts here; a config "
                "is one"
            )
        return self._result

    def _next(self) -> Event:
        self._num_events += 1
        if self._num_events > MAX_EVENTS:
            raise ConfigError(
                f"{self._source}: more than {MAX_EVENTS:,} keys and values; this is no config"
            )
        return next(self._events)

    def _value(self, event: Event, path: KeyPath, depth: int) -> Any:
        place = _place(event.start_mark, self._source)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{place}: nested more than {MAX_DEPTH} deep; this is no config")
        if isinstance(event, AliasEvent):
            self._problem(
                event,
                path,
                f"an alias (*{clipped(event.anchor)}) is not allowed; write the value out",
            )
            return None
        assert isinstance(event, ScalarEvent | CollectionStartEvent)
        self._refuse_decoration(event, path)
        if isinstance(event, ScalarEvent):
            return self._scalar(event, path, place)
        self._result.values[path] = place
        return (
            self._mapping(path, depth)
            if isinstance(event, MappingStartEvent)
            else self._list(path, depth)
        )

    def _mapping(self, path: KeyPath, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            if not isinstance(event, ScalarEvent) or _HALF.search(event.value):
                self._problem(event, path, "a key must be plain text")
                self._value(event, (*path, "?"), depth + 1)
                self._value(self._next(), (*path, "?"), depth + 1)
                continue
            key = (*path, event.value)
            self._refuse_decoration(event, key)
            if key in self._result.keys:
                self._problem(
                    event, key, f"given twice, first on line {self._result.keys[key].line}"
                )
            self._result.keys[key] = _place(event.start_mark, self._source)
            mapping[event.value] = self._value(self._next(), key, depth + 1)
        return mapping

    def _list(self, path: KeyPath, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            items.append(self._value(event, (*path, len(items)), depth + 1))
        return items

    def _scalar(self, event: ScalarEvent, path: KeyPath, place: Place) -> Any:
        text: str = event.value
        if found := NOT_TEXT.search(text):
            self._problem(event, path, f"holds U+{ord(found[0]):04X}, which is not text")
        if event.style is not None:
            self._result.values[path] = replace(place, text=json.dumps(text, ensure_ascii=False))
            return text
        # The parser places a missing value at the next item; the place of its key is more helpful.
        self._result.values[path] = (
            replace(place, text=text) if text else self._result.keys.get(path, place)
        )
        return plain_value(text)

    def _refuse_decoration(self, event: ScalarEvent | CollectionStartEvent, path: KeyPath) -> None:
        if event.anchor is not None:
            self._problem(
                event,
                path,
                f"an anchor (&{clipped(event.anchor)}) is not allowed; write the value out",
            )
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._problem(
                event, path, f"a tag ({clipped(tag)}) is not allowed; write the plain value"
            )

    def _problem(self, event: Event, path: KeyPath, message: str) -> None:
        self._result.problems.append(Problem(_place(event.start_mark, self._source), path, message))


def _place(mark: StreamMark, source: str) -> Place:
    return Place(source, mark.line + 1, mark.column + 1)


def _line_and_column(before: str) -> tuple[int, int]:
    lines = f"{before}|".splitlines()
    return len(lines), len(lines[-1])
