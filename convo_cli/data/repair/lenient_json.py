"""Lenient reader of lines that are not strict JSON; it reads only what needs no guess."""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from typing import Any

from convo_cli.data.shapes.table import is_array_of_dialogues

MAX_PYTHON_CHARACTERS = 2**20
"""Longest line that is read as a Python value."""

_BOM = "\ufeff"
_BYTES_IN_A_ROW = re.compile(rb"[\x80-\xff]{2}")
# Such text is a UTF-8 character cut after its first byte, or letters of another encoding.
_NOT_WINDOWS_1252 = re.compile("[a-z][À-Þ]|[A-Za-z][¡-¿×÷][a-z]")
_SPACE_AND_COMMA = re.compile(r"[ \t\r\n]*(?:,[ \t\r\n]*)?")
# A truncated string extends to the end, so that it is not searched again from each of its quotes.
_STRING_OR_LAST_COMMA = re.compile(
    r'("[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z))|,([ \t\r\n]*[\]}])', re.DOTALL
)
# Only the first character of a terminal control sequence is a control character.
_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_LINE_END = re.compile(r"\r\n?|[\x0b\x0c]")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0e-\x1f\ud800-\udfff]")


class BeyondRepairError(ValueError):
    """No value can be read from the line without a guess."""


def read_values(raw: bytes, *, is_file: bool = False) -> list[tuple[str | None, Any]]:
    """Return the dialogues on the line, fit for strict JSON, each with its own part of the line.

    The part is None if the dialogue has no part of its own. ``is_file`` is true if the text is a
    whole file, where each pair of texts is a dialogue. Raises `BeyondRepairError` if no value
    can be read from the line.
    """
    text = _decode(raw).lstrip(_BOM).strip(" \t\r\n")
    values: list[tuple[str | None, Any]] = []
    try:
        for own, value in _each_value(text):
            strict = _strict(value)
            if is_array_of_dialogues(strict, is_file=is_file):
                values += [(None, item) for item in strict]
            else:
                values.append((own, strict))
    except RecursionError:
        raise BeyondRepairError("nested too deeply") from None
    return values


def dump(value: Any) -> str:
    """Return the value as one line of JSON, without a line end."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    # Two such bytes in a row may come from a Korean, Japanese or Chinese character.
    if not _BYTES_IN_A_ROW.search(raw):
        try:
            text = raw.decode("cp1252")
        except UnicodeDecodeError:
            pass
        else:
            if not _NOT_WINDOWS_1252.search(text):
                return text
    raise BeyondRepairError("neither UTF-8 nor Windows-1252")


def _each_value(text: str) -> list[tuple[str | None, Any]]:
    decoder = json.JSONDecoder(
        strict=False,
        object_pairs_hook=_without_repeats,
        parse_constant=lambda name: None,
        parse_float=lambda digits: float(digits) if math.isfinite(float(digits)) else digits,
        parse_int=lambda digits: int(digits) if math.isfinite(float(digits)) else digits,
    )
    try:
        return _values_in(text, decoder)
    except json.JSONDecodeError:
        pass
    try:
        return _values_in(_STRING_OR_LAST_COMMA.sub(r"\1\2", text), decoder)
    except json.JSONDecodeError:
        return [(None, python_value(text))]


def _values_in(text: str, decoder: json.JSONDecoder) -> list[tuple[str | None, Any]]:
    values: list[tuple[str | None, Any]] = []
    at = 0
    while at < len(text):
        value, end = decoder.raw_decode(text, at)
        own = text[at:end]
        values.append((None if "\n" in own else own, value))
        space = _SPACE_AND_COMMA.match(text, end)
        at = space.end() if space else end
    return values


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    first: dict[str, Any] = {}
    for key, value in pairs:
        if key in first and dump(first[key]) != dump(value):
            raise BeyondRepairError(f"{key} has two values")
        first.setdefault(key, value)
    return first


def python_value(text: str) -> Any:
    """Read a value that Python's repr wrote, and nothing that only resembles one."""
    if len(text) > MAX_PYTHON_CHARACTERS:
        raise BeyondRepairError("too long")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, Warning):
        raise BeyondRepairError("neither JSON nor Python") from None
    if repr(value) != text or not isinstance(value, (list, dict)):
        raise BeyondRepairError("not as Python writes it")
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        raise BeyondRepairError("more than JSON can hold") from None


def _strict(value: Any) -> Any:
    """Return the value with every key and text made fit for strict JSON."""
    if isinstance(value, str):
        return without_forbidden(value)
    if isinstance(value, list):
        return [_strict(item) for item in value]
    if isinstance(value, dict):
        return {without_forbidden(key): _strict(item) for key, item in value.items()}
    return value


def without_forbidden(text: str) -> str:
    """Remove the characters that strict JSON refuses; every line end becomes a newline."""
    return _FORBIDDEN.sub("", _LINE_END.sub("\n", _ESCAPE_SEQUENCE.sub("", text)))
