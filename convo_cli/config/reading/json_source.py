"""Reader of JSON configs with the place of every key and value.

YAML 1.2 contains JSON, but the YAML library refuses some of it: tabs in the indentation, a key and
its colon on two lines, surrogate pairs written as escapes.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from convo_cli.config.places import KeyPath, Place, Problem, Source
from convo_cli.config.reading.building import SourceBuilder, key_name
from convo_cli.errors import ConfigError

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_WORD = re.compile(r'[^\s,:\[\]{}"]+')
_SCALAR = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null")
_LINE_END = re.compile(r"\r\n|\r|\n")


def parse_json(text: str, source: str) -> Source:
    """Parse a JSON object; a duplicate key becomes a problem, bad syntax raises ConfigError."""
    return _Reader(text, source).read()


class _Reader(SourceBuilder):
    """Reads the characters of a JSON text from left to right."""

    def __init__(self, text: str, source: str) -> None:
        super().__init__(source)
        self._text = text
        self._at = 0
        self._lines = [0, *(end.end() for end in _LINE_END.finditer(text))]

    def read(self) -> Source:
        self.result.value = self._value((), 1)
        if self._peek():
            raise self._fault(self._at, "text after the end of the object")
        return self.result

    def _value(self, path: KeyPath, depth: int) -> Any:
        opening = self._peek()
        place = self._place(self._at)
        self.count()
        self.require_depth(place, depth)
        if opening == '"':
            return self.quoted(path, place, self._string())
        if opening and opening in "{[":
            self.result.values[path] = place
            return self._mapping(path, depth) if opening == "{" else self._list(path, depth)
        word = _WORD.match(self._text, self._at)
        if word is None:
            raise self._fault(self._at, "a value is missing")
        if not _SCALAR.fullmatch(word[0]):
            raise self._fault(self._at, "text needs double quotes")
        self._at = word.end()
        return self.plain(path, place, word[0])

    def _mapping(self, path: KeyPath, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for start in self._items("}"):
            place = self._place(start)
            self.count()
            if self._text[start] != '"':
                raise self._fault(start, "a key needs double quotes")
            name = key_name(self._string())
            if name is None:
                self.problem(place, path, "a key must be plain text")
            key = (*path, "?" if name is None else name)
            if name is not None:
                self.key(key, place, mapping)
            if self._peek() != ":":
                raise self._fault(self._at, "a colon is missing after the key")
            self._at += 1
            value = self._value(key, depth + 1)
            if name is not None:
                mapping[name] = value
        return mapping

    def _list(self, path: KeyPath, depth: int) -> list[Any]:
        items: list[Any] = []
        for _ in self._items("]"):
            items.append(self._value((*path, len(items)), depth + 1))
        return items

    def _items(self, closing: str) -> Iterator[int]:
        """Yield the position of each item; the caller moves past the item."""
        start = self._at
        self._at += 1
        is_first = True
        while (character := self._peek()) != closing:
            if not character:
                raise self._fault(start, "a bracket that is never closed")
            if not is_first:
                if character != ",":
                    raise self._fault(self._at, f"a comma or a {closing} is missing")
                self._at += 1
                if self._peek() in ("", closing):
                    raise self._fault(self._at, "nothing follows the comma")
            is_first = False
            yield self._at
        self._at += 1

    def _string(self) -> str:
        found = _STRING.match(self._text, self._at)
        if found is None:
            raise self._fault(self._at, "a quote that is not closed on its line")
        try:
            text: str = json.loads(found[0])
        except ValueError:
            raise self._fault(self._at, "a backslash that does not begin a JSON escape") from None
        self._at = found.end()
        return text

    def _peek(self) -> str:
        """Skip white space and return the next character, which is empty at the end."""
        space = _SPACE.match(self._text, self._at)
        assert space is not None
        self._at = space.end()
        return self._text[self._at : self._at + 1]

    def _place(self, at: int) -> Place:
        line = bisect_right(self._lines, at)
        return Place(self.source, line, at - self._lines[line - 1] + 1)

    def _fault(self, at: int, message: str) -> ConfigError:
        return Problem(self._place(at), (), f"not valid JSON: {message}").error()
