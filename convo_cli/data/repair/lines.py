"""One line of a data file, mended as far as that needs no guess: what `repair` does with a line that is not good."""

from __future__ import annotations

import ast
import io
import json
import math
import re
import warnings
from functools import partial
from typing import Any

import jsonlines

from convo_cli.config.schema import DataConfig
from convo_cli.data.checks.suspicious_text import odd_spots, without_entities, without_invisible_characters
from convo_cli.data.shapes.formats import is_array_of_dialogues, shape_of
from convo_cli.data.shapes.known_keys import (
    DIALOGUE_KEYS,
    REASONING_KEYS,
    TEXT_KEYS,
    TRAIN_KEYS,
    TURN_KEYS,
    misspelt,
)
from convo_cli.data.shapes.table import SHAPES

MAX_PYTHON_CHARACTERS = 2**20
"""Longest line that is tried as a Python value."""

MAX_ROUNDS = 10
"""An entity may hide an entity; data made to hide a million of them shall not take a million rounds."""

_BOM = "\ufeff"
_BYTES_IN_A_ROW = re.compile(rb"[\x80-\xff]{2}")
# So a UTF-8 character looks that was cut after its first byte, and so letters of other encodings look.
_NOT_WINDOWS_1252 = re.compile("[a-z][À-Þ]|[A-Za-z][¡-¿×÷][a-z]")
_SPACE_AND_COMMA = re.compile(r"[ \t\r\n]*(?:,[ \t\r\n]*)?")
# A string that is cut off extends to the end, so that it is not searched again from each of its quotes.
_STRING_OR_LAST_COMMA = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z))|,([ \t\r\n]*[\]}])', re.DOTALL)
# Of a terminal's control sequences only the first character is a control character.
_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_LINE_END = re.compile(r"\r\n?|[\x0b\x0c]")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0e-\x1f\ud800-\udfff]")
_TRUE_OR_FALSE = {"true": True, "false": False, "1": True, "0": False}
_KEYS_OF_DIALOGUE = DIALOGUE_KEYS | {*TRAIN_KEYS}
_KEYS_OF_TURN = TURN_KEYS | {*TRAIN_KEYS, *REASONING_KEYS}


class BeyondRepairError(ValueError):
    """No value can be read from the line without a guess."""


def read_values(raw: bytes) -> list[tuple[str | None, Any]]:
    """Every dialogue on the line, fit for strict JSON, with its part of the line where it has one to itself.

    Raises `BeyondRepairError`; then there is nothing to be had from the line.
    """
    text = _decode(raw).lstrip(_BOM).strip(" \t\r\n")
    values: list[tuple[str | None, Any]] = []
    try:
        for own, value in _each_value(text):
            strict = _strict(value)
            values += [(None, item) for item in strict] if is_array_of_dialogues(strict) else [(own, strict)]
    except RecursionError:
        raise BeyondRepairError("nested too deep") from None
    return values


def dump(value: Any) -> str:
    """The value as one line of JSON, without a line end."""
    line = io.StringIO()
    jsonlines.Writer(line, dumps=partial(json.dumps, ensure_ascii=False, separators=(",", ":"))).write(value)
    return line.getvalue().rstrip("\n")


def mend_value(value: Any, data_config: DataConfig) -> Any:
    """The dialogue with texts mended, empty turns dropped, misspelt keys renamed and "train" made true or false."""
    if isinstance(value, list):
        return _mend_turns(value, data_config)
    if not isinstance(value, dict):
        return value
    value = _with_true_or_false(_rename(value, _KEYS_OF_DIALOGUE))
    shape = SHAPES.get(shape_of(value) or "")
    for key in (*shape.keys, *shape.optional, "system") if shape else ():
        if isinstance(text_or_turns := value.get(key), str):
            value[key] = mend_text(text_or_turns)
        elif isinstance(text_or_turns, list):
            value[key] = _mend_turns(text_or_turns, data_config)
    return value


def mend_text(text: str) -> str:
    """The text in its right encoding, without HTML entities and characters that nobody sees.

    A text that is still not at rest after `MAX_ROUNDS` comes back as it was.
    """
    mended = text
    for _ in range(MAX_ROUNDS):
        before = mended
        codes = {code for code, _ in odd_spots(mended)}
        if "mojibake" in codes:
            mended = _in_right_encoding(mended)
        if "html-entity" in codes:
            mended = _clean(without_entities(mended))
        mended = without_invisible_characters(mended)
        if mended == before:
            return mended
    return text


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    # Two such bytes in a row may be half of what was a Korean, Japanese or Chinese character.
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
        return [(None, _python_value(text))]


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


def _python_value(text: str) -> Any:
    """What Python wrote with repr, and nothing that merely looks like it."""
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
    """The value with every key and text made fit for strict JSON."""
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, list):
        return [_strict(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _strict(item) for key, item in value.items()}
    return value


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("", _LINE_END.sub("\n", _ESCAPE_SEQUENCE.sub("", text)))


def _rename(value: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    for key, item in value.items():
        meant = misspelt(key)
        renamed[meant if meant in known and meant not in value and meant not in renamed else key] = item
    return renamed


def _mend_turns(turns: list[Any], data_config: DataConfig) -> list[Any]:
    mended = [_mend_turn(turn) for turn in turns]
    if sum(not _is_empty(turn) for turn in mended) < 2:
        return mended
    if not all(isinstance(turn, str) for turn in mended):
        return [turn for turn in mended if not _is_empty(turn)]
    while _is_empty(mended[-1]):
        mended.pop()
    if not any(map(_is_empty, mended)):
        return mended
    # Left out of the middle it would make the other speaker say all that follows, so everybody gets a name.
    speakers = [data_config.speakers.user[0], data_config.speakers.assistant[0]]
    if data_config.first_speaker == "assistant":
        speakers.reverse()
    return [{"role": speakers[index % 2], "content": text} for index, text in enumerate(mended) if not _is_empty(text)]


def _mend_turn(turn: Any) -> Any:
    if isinstance(turn, str):
        return mend_text(turn)
    if not isinstance(turn, dict):
        return turn
    turn = _with_true_or_false(_rename(turn, _KEYS_OF_TURN))
    key = _text_key(turn)
    match turn.get(key):
        case str(text) | [{"type": "text", "text": str(text)}]:
            turn[key] = mend_text(text)
    return turn


def _with_true_or_false(value: dict[str, Any]) -> dict[str, Any]:
    """The object with "train", "weight" and "loss" that are texts replaced by the value that the text spells."""
    for key in TRAIN_KEYS:
        if isinstance(said := value.get(key), str):
            value[key] = _TRUE_OR_FALSE.get(said.lower(), said)
    return value


def _text_key(turn: dict[str, Any]) -> str:
    return next((key for key in TEXT_KEYS if key in turn), "text")


def _is_empty(turn: Any) -> bool:
    text = turn.get(_text_key(turn)) if isinstance(turn, dict) else turn
    return isinstance(text, str) and not text.strip()


def _in_right_encoding(text: str) -> str:
    import ftfy
    from ftfy.badness import is_bad

    mended = ftfy.fix_encoding(text)
    return text if is_bad(mended) or mended.count("\ufffd") > text.count("\ufffd") else mended
