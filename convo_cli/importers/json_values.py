"""Reader of JSON files of any size: an array, values one after another, or one value a line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

from convo_cli.data.reader import MAX_LINE_BYTES
from convo_cli.errors import DataError
from convo_cli.importers.source_files import Source, encoding_of

_CHUNK_BYTES = 2**18
_SPACE = " \t\r\n\ufeff"


def iter_values(source: Source, name: str) -> Iterator[Any]:
    """Yield the elements of an array at the top of a file, or its values one after another.

    At most one value and one chunk are in memory. DataError for what is not JSON, and for a value
    of more than `MAX_LINE_BYTES`.
    """
    with source.open(name) as stream:
        decoder = codecs.getincrementaldecoder(encoding_of(source.head(name)))()
        values = _Values(source.shown(name))
        size = _CHUNK_BYTES
        is_over = False
        while not is_over:
            chunk = stream.read(size)
            is_over = not chunk
            try:
                text = decoder.decode(chunk, final=is_over)
            except UnicodeError:
                raise values.refusal("it is not UTF-8 text") from None
            found = list(values.push(text, is_over=is_over))
            # A longer chunk after each failure keeps the time linear: a value is parsed from its
            # beginning each time.
            size = _CHUNK_BYTES if found else min(size * 2, MAX_LINE_BYTES)
            yield from found


class _Values:
    """Cuts JSON values out of text that arrives in pieces."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._text = ""
        self._is_array = False
        self._has_begun = False
        self._num_values = 0
        self._parse = json.JSONDecoder(strict=False).raw_decode

    def push(self, text: str, *, is_over: bool) -> Iterator[Any]:
        """Yield the values that are complete."""
        self._text += text
        at = 0
        while True:
            at = self._next(at)
            if at == len(self._text):
                break
            try:
                value, end = self._parse(self._text, at)
            except RecursionError:
                raise self.refusal("it is nested too deeply") from None
            except ValueError as error:
                if is_over:
                    raise self.refusal(f"it is not JSON: {error}") from None
                if len(self._text) - at > MAX_LINE_BYTES:
                    limit = MAX_LINE_BYTES // 2**20
                    reason = f"it is not JSON, or longer than {limit} MiB: {error}"
                    raise self.refusal(reason) from None
                break
            if end == len(self._text) and not is_over:
                break  # a number may continue
            at = end
            self._num_values += 1
            yield value
        self._text = self._text[at:]
        if is_over and self._is_array:
            raise self.refusal("the file ends inside the array; it is truncated")

    def refusal(self, reason: str) -> DataError:
        message = f"{self._where}: value {self._num_values + 1}: {reason}"
        return DataError(message, hint="copy, download or export it again")

    def _next(self, at: int) -> int:
        """Return the place of the next value, after white space and the signs of the array."""
        skipped = _SPACE + "," if self._is_array else _SPACE
        text = self._text
        while at < len(text):
            if text[at] in skipped:
                at += 1
            elif text[at] == "[" and not self._has_begun:
                self._is_array = self._has_begun = True
                skipped = _SPACE + ","
                at += 1
            elif text[at] == "]" and self._is_array:
                self._is_array = False
                skipped = _SPACE
                at += 1
            else:
                self._has_begun = True
                break
        return at
