"""Scanner of one line: faults against strict JSON with column and path, and the columns of other
problems.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence

from convo_cli.data.problems import Problem, ProblemSink, member, quoted

MAX_DEPTH = 64
"""Deepest nesting of arrays and objects in a line."""

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORD = re.compile(r"-?[A-Za-z]+")
_CONSTANTS = {"true", "false", "null"}
_NOT_NUMBERS = {"nan", "inf", "infinity"}
# Places inside a string to check: a surrogate pair (fine), an escape, or a character that must be
# escaped.
_NOTABLE = re.compile(
    r"(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|\\u(?P<hex>[0-9a-fA-F]{4})"
    r"|\\(?P<escape>.)"
    r"|(?P<raw>[\x00-\x1f\ud800-\udfff])",
    re.DOTALL,
)
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def report_faults(raw: bytes, found: ProblemSink) -> bool:
    """Report every fault up to the first after which the line makes no sense; return False if there
    is none.
    """
    scanner = _Scanner(raw, found)
    scanner.scan()
    return scanner.is_refused


def locate(raw: bytes, paths: Iterable[str]) -> dict[str, int]:
    """Return the columns at which the values at ``paths`` begin in a line that `decode` accepted,
    in one scan.

    A path that does not exist has column 1.
    """
    columns = dict.fromkeys(paths, 1)
    if columns:
        scanner = _Scanner(raw, lambda problem: None, wanted=set(columns))
        scanner.scan()
        columns |= scanner.columns
    return columns


def place(problem: Problem, file: str, line: int, raw: bytes) -> Problem:
    """Return the problem with its file and line, and with its column if only the path was known."""
    return place_all([problem], file, line, raw)[0]


def place_all(problems: Sequence[Problem], file: str, line: int, raw: bytes) -> list[Problem]:
    """Do the same for all problems of a line with a single scan."""
    columns = locate(raw, (problem.path for problem in problems if not problem.column))
    return [
        Problem(each.code, each.message, each.path, each.column or columns[each.path], line, file)
        for each in problems
    ]


class _EndOfScanError(Exception):
    """The rest of the line makes no sense, or need not be scanned."""


class _Scanner:
    """Scans one line and reports its faults, or looks for the columns of some paths."""

    def __init__(self, raw: bytes, found: ProblemSink, wanted: set[str] | None = None) -> None:
        # Bytes that are not UTF-8 become U+DC80 to U+DCFF, which valid UTF-8 never yields; each is
        # one column.
        self.text = raw.decode("utf-8", "surrogateescape")
        self.found = found
        self.wanted = wanted
        self.columns: dict[str, int] = {}
        self.is_refused = False

    def scan(self) -> None:
        start = 0
        if self.text.startswith("\ufeff"):
            self._report("stray-bom", 0, "$", "a byte order mark in the middle of the file")
            start = 1
        try:
            end = self._skip_space(self._value(self._skip_space(start), "$", 0))
            if end < len(self.text):
                is_value = self.text[end] in '[{"'
                what = (
                    "a second JSON value" if is_value else f"{self._seen(end)} after the JSON value"
                )
                self._report("extra-data", end, "$", f"{what} on the line")
        except _EndOfScanError:
            pass

    def _value(self, at: int, path: str, depth: int) -> int:
        """Check the value that begins at ``at``, and return its end."""
        if self.wanted and path in self.wanted:
            self.wanted.remove(path)
            self.columns[path] = at + 1
            if not self.wanted:
                raise _EndOfScanError
        char = self.text[at : at + 1]
        if char in ("[", "{"):
            if depth == MAX_DEPTH:
                raise self._failure(
                    "nesting-too-deep", at, path, f"nested more than {MAX_DEPTH} levels deep"
                )
            return self._array(at, path, depth) if char == "[" else self._object(at, path, depth)
        if char == '"':
            return self._string(at, path)
        if number := _NUMBER.match(self.text, at):
            if math.isinf(float(number.group())):
                self._report(
                    "number-too-large",
                    at,
                    path,
                    f"the number {number.group()[:20]}… is out of range",
                )
            return number.end()
        return self._word(at, path)

    def _array(self, at: int, path: str, depth: int) -> int:
        at = self._skip_space(at + 1)
        if self.text[at : at + 1] == "]":
            return at + 1
        index = 0
        while True:
            at = self._skip_space(self._value(at, f"{path}[{index}]", depth + 1))
            index += 1
            if self.text[at : at + 1] == "]":
                return at + 1
            at = self._after_comma(at, path, "]")

    def _object(self, at: int, path: str, depth: int) -> int:
        at = self._skip_space(at + 1)
        if self.text[at : at + 1] == "}":
            return at + 1
        keys: set[str] = set()
        while True:
            if self.text[at : at + 1] != '"':
                raise self._unexpected(at, path, "a key in double quotes")
            end = self._string(at, path)
            key = self._key(at, end)
            if key in keys:
                self._report(
                    "duplicate-key", at, member(path, key), f"the key {quoted(key)} is there twice"
                )
            keys.add(key)
            colon = self._skip_space(end)
            if self.text[colon : colon + 1] != ":":
                raise self._unexpected(colon, path, f'":" after the key {quoted(key)}')
            at = self._skip_space(
                self._value(self._skip_space(colon + 1), member(path, key), depth + 1)
            )
            if self.text[at : at + 1] == "}":
                return at + 1
            at = self._after_comma(at, path, "}")

    def _after_comma(self, at: int, path: str, closing: str) -> int:
        if self.text[at : at + 1] != ",":
            raise self._unexpected(at, path, f'"," or "{closing}"')
        after = self._skip_space(at + 1)
        if self.text[after : after + 1] == closing:
            raise self._failure("invalid-json", at, path, f'a comma before the closing "{closing}"')
        return after

    def _string(self, at: int, path: str) -> int:
        string = _STRING.match(self.text, at)
        if string is None:
            raise self._failure(
                "truncated-json", at, path, "the text that starts here has no closing quote"
            )
        seen: set[str] = set()
        for match in _NOTABLE.finditer(self.text, at + 1, string.end() - 1):
            fault = _fault(match)
            if fault is not None and fault[0] not in seen:
                seen.add(fault[0])
                self._report(fault[0], match.start(), path, fault[1])
        return string.end()

    def _key(self, start: int, end: int) -> str:
        try:
            return str(json.loads(self.text[start:end], strict=False))
        except json.JSONDecodeError:
            return self.text[start + 1 : end - 1]

    def _word(self, at: int, path: str) -> int:
        match = _WORD.match(self.text, at)
        word = match.group() if match else ""
        if word in _CONSTANTS:
            return at + len(word)
        if word.lstrip("-").lower() in _NOT_NUMBERS:
            self._report("not-a-number", at, path, f"{word} is not JSON")
            return at + len(word)
        if word in ("None", "True", "False") or self.text[at : at + 1] == "'":
            shown = word or "a single quote"
            raise self._failure(
                "invalid-json", at, path, f"{shown} is Python's spelling, not JSON's"
            )
        raise self._unexpected(at, path, "a value")

    def _skip_space(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        return match.end() if match else at

    def _seen(self, at: int) -> str:
        char = self.text[at]
        return _byte_name(char) if "\udc80" <= char <= "\udcff" else quoted(char)

    def _unexpected(self, at: int, path: str, expected: str) -> _EndOfScanError:
        if at >= len(self.text):
            return self._failure(
                "truncated-json", at, path, f"the line ends where {expected} must follow"
            )
        if "\udc80" <= self.text[at] <= "\udcff":
            return self._failure("not-utf8", at, path, f"{_byte_name(self.text[at])} is not UTF-8")
        return self._failure(
            "invalid-json", at, path, f"expected {expected}, found {self._seen(at)}"
        )

    def _failure(self, code: str, at: int, path: str, message: str) -> _EndOfScanError:
        self._report(code, at, path, message)
        return _EndOfScanError()

    def _report(self, code: str, at: int, path: str, message: str) -> None:
        self.is_refused = True
        self.found(Problem(code, message, path, column=at + 1))


def _fault(match: re.Match[str]) -> tuple[str, str] | None:
    """Return the code and message of a fault at a notable place inside a string; None if it is
    fine.
    """
    if match["pair"]:
        return None
    if match["raw"]:
        char = match["raw"]
        if "\udc80" <= char <= "\udcff":
            return "not-utf8", f"{_byte_name(char)} is not UTF-8"
        if char in "\n\t":
            return (
                "invalid-json",
                f"an unescaped {'tab' if char == chr(9) else 'newline'} inside a text",
            )
    elif match["hex"]:
        char = chr(int(match["hex"], 16))
    elif match["escape"] in _ESCAPES:
        char = _ESCAPES[match["escape"]]
    else:
        return "invalid-json", f"{quoted(match.group())} is no escape of JSON"
    if char == "\0":
        return "nul-character", "a NUL character (U+0000) inside a text"
    if "\ud800" <= char <= "\udfff":
        return "lone-surrogate", f"half of a surrogate pair (U+{ord(char):04X}) inside a text"
    if char < " " and char not in "\n\t":
        return "control-character", f"a control character (U+{ord(char):04X}) inside a text"
    return None


def _byte_name(char: str) -> str:
    return f"byte 0x{ord(char) - 0xDC00:02X}"
