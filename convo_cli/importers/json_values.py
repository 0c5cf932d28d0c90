"""Reader of JSON files of any size, of which at most one value and one chunk are in memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from convo_cli.data.reader import MAX_LINE_BYTES
from convo_cli.errors import DataError
from convo_cli.importers.source_files import Source, encoding_of

Path: TypeAlias = tuple[str, ...]
"""Keys from the top of a value; the elements of a list have the key *."""

_CHUNK_BYTES = 2**18
_SPACE = " \t\r\n\ufeff"
_CLOSING = {"[": "]", "{": "}"}


class Event(NamedTuple):
    """A value at a path, or the end of the list or object at this path."""

    path: Path
    value: Any
    is_end: bool = False


def iter_values(source: Source, name: str) -> Iterator[Any]:
    """Yield the elements of an array at the top of a file, or its values one after another.

    DataError for what is not JSON, and for a value of more than `MAX_LINE_BYTES`.
    """
    for event in iter_events(source, name, ()):
        if not event.is_end:
            yield event.value


def iter_events(source: Source, name: str, inside: Collection[Path]) -> Iterator[Event]:
    """Yield the values of a file; lists and objects whose path is in ``inside`` piece by piece.

    An array at the top always comes piece by piece.
    """
    with source.open(name) as stream:
        decoder = codecs.getincrementaldecoder(encoding_of(source.head(name)))()
        walker = _Walker(source.shown(name), inside)
        size = _CHUNK_BYTES
        is_over = False
        while not is_over:
            chunk = stream.read(size)
            is_over = not chunk
            try:
                text = decoder.decode(chunk, final=is_over)
            except UnicodeError:
                raise walker.refusal("it is not UTF-8 text") from None
            found = list(walker.push(text, is_over=is_over))
            # A value is parsed from its beginning after each chunk; longer chunks after a failure
            # keep the time linear.
            size = _CHUNK_BYTES if found else min(size * 2, MAX_LINE_BYTES)
            yield from found


@dataclass(frozen=True, slots=True)
class _Frame:
    """A list or an object that is open."""

    path: Path
    closing: str


class _IncompleteError(Exception):
    """The text ends before the value does."""


class _Walker:
    """Cuts JSON values out of text that arrives in pieces."""

    def __init__(self, where: str, inside: Collection[Path]) -> None:
        self._where = where
        self._inside = inside
        self._text = ""
        self._frames: list[_Frame] = []
        self._num_values = 0
        self._parse = json.JSONDecoder(strict=False).raw_decode

    def push(self, text: str, *, is_over: bool) -> Iterator[Event]:
        """Yield the values that are complete."""
        self._text = self._text + text
        at = 0
        while (at := self._after_space(at)) < len(self._text):
            try:
                event, at = self._step(at, is_over=is_over)
            except _IncompleteError:
                break
            if event is not None:
                self._num_values += not event.is_end
                yield event
        self._text = self._text[at:]
        if is_over and (self._frames or self._text):
            raise self.refusal("the file ends inside a value; it is truncated")

    def refusal(self, reason: str) -> DataError:
        message = f"{self._where}: value {self._num_values + 1}: {reason}"
        return DataError(message, hint="copy, download or export it again")

    def _step(self, at: int, *, is_over: bool) -> tuple[Event | None, int]:
        """Read one sign or value; return its event, and the place after it."""
        sign = self._text[at]
        if not self._frames:
            return self._value((), at, is_over=is_over)
        frame = self._frames[-1]
        if sign == frame.closing:
            self._frames.pop()
            return Event(frame.path, None, is_end=True), at + 1
        if sign == ",":
            return None, at + 1
        if frame.closing == "]":
            return self._value((*frame.path, "*"), at, is_over=is_over)
        key, end = self._parsed(at, is_over=is_over)
        end = self._after_space(end)
        if end >= len(self._text):
            raise _IncompleteError
        if not isinstance(key, str) or self._text[end] != ":":
            raise self.refusal("it is not JSON: a key and a colon are missing")
        end = self._after_space(end + 1)
        if end >= len(self._text):
            raise _IncompleteError
        return self._value((*frame.path, key), end, is_over=is_over)

    def _value(self, path: Path, at: int, *, is_over: bool) -> tuple[Event | None, int]:
        sign = self._text[at]
        if sign in _CLOSING and (path in self._inside or (not path and sign == "[")):
            self._frames.append(_Frame(path, _CLOSING[sign]))
            return None, at + 1
        value, end = self._parsed(at, is_over=is_over)
        if end == len(self._text) and not is_over:
            raise _IncompleteError  # a number may continue
        return Event(path, value), end

    def _parsed(self, at: int, *, is_over: bool) -> tuple[Any, int]:
        try:
            return self._parse(self._text, at)
        except RecursionError:
            raise self.refusal("it is nested too deeply") from None
        except ValueError as error:
            if is_over:
                raise self.refusal(f"it is not JSON: {error}") from None
            if len(self._text) - at > MAX_LINE_BYTES:
                limit = f"longer than {MAX_LINE_BYTES // 2**20} MiB"
                raise self.refusal(f"it is not JSON, or {limit}: {error}") from None
            raise _IncompleteError from None

    def _after_space(self, at: int) -> int:
        while at < len(self._text) and self._text[at] in _SPACE:
            at += 1
        return at
