"""Scanner of one line of JSON: its faults, with column and path, and the columns of its values."""

from __future__ import annotations

import json
import math
import re

from convo_cli.data.conversions.commands import Conversion, by_fix
from convo_cli.data.problems import Problem, ProblemSink, member
from convo_cli.wording import quoted

_REMOVE_COMMA = by_fix("remove the comma, or all such commas")
_FROM_PYTHON = by_fix("write the line as JSON, or convert all lines that Python wrote")

MAX_DEPTH = 64
"""Deepest nesting of arrays and objects in a line."""

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORD = re.compile(r"-?[A-Za-z]+")
_CONSTANTS = {"true", "false", "null"}
_PYTHON_WORDS = {"None": "null", "True": "true", "False": "false"}
_NOT_NUMBERS = {"nan", "inf", "infinity"}
# Places to check in a string: a surrogate pair (valid), an escape, or a raw control character.
_NOTABLE = re.compile(
    r"(?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|\\u(?P<hex>[0-9a-fA-F]{4})"
    r"|\\(?P<escape>.)"
    r"|(?P<raw>[\x00-\x1f\ud800-\udfff])",
    re.DOTALL,
)
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def report_faults(raw: bytes, found: ProblemSink) -> bool:
    """Report the faults of a line; return False if there is none.

    The scan ends at a fault after which the rest of the line makes no sense.
    """
    scanner = Scanner(raw, found)
    scanner.scan()
    return scanner.is_refused


class _EndOfScanError(Exception):
    """The rest of the line makes no sense, or need not be scanned."""


class Scanner:
    """Scans one line: reports its faults, and finds the columns of the ``wanted`` paths."""

    def __init__(self, raw: bytes, found: ProblemSink, wanted: set[str] | None = None) -> None:
        # A byte that is not UTF-8 becomes one of U+DC80 to U+DCFF, which valid UTF-8 never yields.
        self.text = raw.decode("utf-8", "surrogateescape")
        self.found = found
        self.wanted = wanted
        self.columns: dict[str, int] = {}
        self.is_refused = False

    def scan(self) -> None:
        start = 0
        if self.text.startswith("\ufeff"):
            self._report("stray-bom", 0, "$", "the line begins with a byte order mark (U+FEFF)")
            start = 1
        try:
            end = self._skip_space(self._value(self._skip_space(start), "$", 0))
            if end < len(self.text):
                is_value = self.text[end] in '[{"'
                what = "a second value" if is_value else self._seen(end)
                self._report("extra-data", end, "$", f"{what} follows the JSON value of the line")
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
                message = f"the value is nested more than {MAX_DEPTH} levels deep"
                raise self._failure("nesting-too-deep", at, path, message)
            return self._array(at, path, depth) if char == "[" else self._object(at, path, depth)
        if char == '"':
            return self._string(at, path)
        if number := _NUMBER.match(self.text, at):
            if math.isinf(float(number.group())):
                shown = quoted(number.group(), limit=20)[1:-1]
                self._report("number-too-large", at, path, f"the number {shown} is too large")
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
            inner = member(path, key)
            if key in keys:
                message = f"the key {quoted(key)} occurs more than once"
                self._report("duplicate-key", at, inner, message)
            keys.add(key)
            colon = self._skip_space(end)
            if self.text[colon : colon + 1] != ":":
                raise self._unexpected(colon, path, f'":" after the key {quoted(key)}')
            end = self._value(self._skip_space(colon + 1), inner, depth + 1)
            at = self._skip_space(end)
            if self.text[at : at + 1] == "}":
                return at + 1
            at = self._after_comma(at, path, "}")

    def _after_comma(self, at: int, path: str, closing: str) -> int:
        if self.text[at : at + 1] != ",":
            raise self._unexpected(at, path, f'"," or "{closing}"')
        after = self._skip_space(at + 1)
        if self.text[after : after + 1] == closing:
            message = f'trailing comma before "{closing}"'
            raise self._failure("invalid-json", at, path, message, _REMOVE_COMMA)
        return after

    def _string(self, at: int, path: str) -> int:
        string = _STRING.match(self.text, at)
        if string is None:
            message = "the string that begins here has no closing quote"
            raise self._failure("truncated-json", at, path, message)
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
            self._report("not-a-number", at, path, f"{word} is not valid JSON")
            return at + len(word)
        if word in _PYTHON_WORDS:
            message = f"{word} is Python syntax; JSON needs {_PYTHON_WORDS[word]}"
            advice = _FROM_PYTHON if "'" in self.text else ""  # as Python's repr writes
            raise self._failure("invalid-json", at, path, message, advice)
        if self.text[at : at + 1] == "'":
            message = "a single quote is Python syntax; JSON needs double quotes"
            raise self._failure("invalid-json", at, path, message, _FROM_PYTHON)
        raise self._unexpected(at, path, "a value")

    def _skip_space(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        return match.end() if match else at

    def _seen(self, at: int) -> str:
        char = self.text[at]
        return _byte_name(char) if "\udc80" <= char <= "\udcff" else quoted(char)

    def _unexpected(self, at: int, path: str, expected: str) -> _EndOfScanError:
        if at >= len(self.text):
            message = f"expected {expected}, but the line ends here"
            return self._failure("truncated-json", at, path, message)
        if "\udc80" <= self.text[at] <= "\udcff":
            return self._failure("not-utf8", at, path, _not_utf8(self.text[at]))
        message = f"expected {expected}, found {self._seen(at)}"
        advice = _FROM_PYTHON if self.text[at] == "'" else ""
        return self._failure("invalid-json", at, path, message, advice)

    def _failure(
        self, code: str, at: int, path: str, message: str, advice: Conversion | str = ""
    ) -> _EndOfScanError:
        self._report(code, at, path, message, advice)
        return _EndOfScanError()

    def _report(
        self, code: str, at: int, path: str, message: str, advice: Conversion | str = ""
    ) -> None:
        self.is_refused = True
        self.found(Problem(code, message, path, column=at + 1, advice=advice))


def _fault(match: re.Match[str]) -> tuple[str, str] | None:
    """Return the code and message of a fault at a notable place in a string; None if it is fine."""
    if match["pair"]:
        return None
    if match["raw"]:
        char = match["raw"]
        if "\udc80" <= char <= "\udcff":
            return "not-utf8", _not_utf8(char)
        if char in "\n\t":
            name, escape = ("tab", "\\t") if char == "\t" else ("newline", "\\n")
            return "invalid-json", f"the string contains a raw {name}; JSON needs {escape}"
    elif match["hex"]:
        char = chr(int(match["hex"], 16))
    elif match["escape"] in _ESCAPES:
        char = _ESCAPES[match["escape"]]
    else:
        return "invalid-json", f"{quoted(match.group())} is not a valid JSON escape"
    if char == "\0":
        return "nul-character", "the string contains a NUL character (U+0000)"
    name = f"(U+{ord(char):04X})"
    if "\ud800" <= char <= "\udfff":
        return "lone-surrogate", f"the string contains half of a surrogate pair {name}"
    is_line_end = char == "\r" and not match["raw"]  # `collector` makes it a newline
    if char < " " and char not in "\n\t" and not is_line_end:
        return "control-character", f"the string contains a control character {name}"
    return None


def _byte_name(char: str) -> str:
    return f"the byte 0x{ord(char) - 0xDC00:02X}"


def _not_utf8(char: str) -> str:
    return f"{_byte_name(char)} is not valid UTF-8"
