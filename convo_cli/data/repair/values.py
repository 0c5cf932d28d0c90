"""Repairs of a decoded dialogue: its texts, empty turns, misspelt keys, and masks written as texts.

Only what needs no guess is repaired.
"""

from __future__ import annotations

from typing import Any

import msgspec

from convo_cli.config.schema import DataConfig
from convo_cli.data.checks.suspicious_text import (
    suspicious_spots,
    without_entities,
    without_invisible_characters,
)
from convo_cli.data.problems import Problem
from convo_cli.data.repair.lenient_json import without_forbidden
from convo_cli.data.repair.mapped_values import repair_mapped, text_key, with_true_or_false
from convo_cli.data.repair.reply_lists import repair_references
from convo_cli.data.shapes.items.entries import keyed_texts
from convo_cli.data.shapes.items.turn_keys import TEXT_KEYS, is_parts, is_turn
from convo_cli.data.shapes.known_keys import (
    DIALOGUE_KEYS,
    REASONING_KEYS,
    TRAIN_KEYS,
    TURN_KEYS,
    misspelt,
)
from convo_cli.data.shapes.mapped.steps import columns_of
from convo_cli.data.shapes.speakers import roles_by_name
from convo_cli.data.shapes.table import SHAPES, SYSTEM_KEYS, shape_of
from convo_cli.data.shapes.tools.tool_calls import is_tool_turn
from convo_cli.data.strict_json.embedded import embedded_json

MAX_ROUNDS = 10
"""Most repairs of one text: an entity may hide another, and hostile data may nest a million."""

_KEYS_OF_DIALOGUE = DIALOGUE_KEYS | {*TRAIN_KEYS}
_KEYS_OF_TURN = TURN_KEYS | {*TRAIN_KEYS, *REASONING_KEYS}


def repair_value(value: Any, data_config: DataConfig) -> Any:
    """Repair texts, remove empty turns, rename misspelt keys, and make "train" true or false.

    Of other replies, empty and repeated ones are removed.
    """
    if (columns := columns_of(data_config.columns)) is not None:
        return repair_mapped(value, columns, repair_text, data_config.reasoning)
    if isinstance(value, str):
        decoded = embedded_json(value, "[{", "$", _ignore)
        is_dialogue = isinstance(decoded, (list, dict))
        return repair_value(decoded, data_config) if is_dialogue else value
    if isinstance(value, list):
        return _repair_turns(value, data_config)
    if not isinstance(value, dict):
        return value
    value = _rename(value, _KEYS_OF_DIALOGUE)
    with_true_or_false(value)
    shape = SHAPES.get(shape_of(value) or "")
    if shape is None:
        return value
    for key in (*shape.keys, *shape.optional, *SYSTEM_KEYS):
        item = value.get(key)
        if key not in shape.keys or len(shape.keys) == 1:
            item = embedded_json(item, "[", "$", _ignore)
        if isinstance(item, list) and not is_parts(item):
            value[key] = _repair_turns(item, data_config)
        elif item is not msgspec.UNSET and key in value:
            value[key] = _repair_texts(item)
    if len(shape.keys) > 1:
        reply = value.get(shape.keys[-1])
        repair_references(value, reply, repair_text, data_config.reasoning)
    return value


def repair_text(text: str) -> str:
    """Return the text in its right encoding, without HTML entities and invisible characters.

    A text that still changes after `MAX_ROUNDS` is returned unchanged.
    """
    repaired = text
    for _ in range(MAX_ROUNDS):
        before = repaired
        codes = {code for code, _ in suspicious_spots(repaired)}
        if "mojibake" in codes:
            repaired = _in_right_encoding(repaired)
        if "html-entity" in codes and "html-markup" not in codes:
            repaired = without_forbidden(without_entities(repaired))
        repaired = without_invisible_characters(repaired)
        if repaired == before:
            return repaired
    return text


def _rename(value: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    for key, item in value.items():
        meant = misspelt(key)
        is_free = meant in known and meant not in value and meant not in renamed
        renamed[meant if meant is not None and is_free else key] = item
    return renamed


def _repair_turns(turns: list[Any], data_config: DataConfig) -> list[Any]:
    repaired = [_repair_turn(turn, data_config) for turn in turns]
    if sum(not _is_empty(turn, data_config) for turn in repaired) < 2:
        return repaired
    if not all(isinstance(turn, str) for turn in repaired):
        return [turn for turn in repaired if not _is_empty(turn, data_config)]
    while _is_empty(repaired[-1], data_config):
        repaired.pop()
    if not any(_is_empty(turn, data_config) for turn in repaired):
        return repaired
    # Without a turn in the middle, the speakers of all later texts would swap. So all are named.
    speakers = [data_config.speakers.user[0], data_config.speakers.assistant[0]]
    if data_config.first_speaker == "assistant":
        speakers.reverse()
    named = [{"role": speakers[index % 2], "content": text} for index, text in enumerate(repaired)]
    return [turn for turn in named if not _is_empty(turn, data_config)]


def _repair_turn(turn: Any, data_config: DataConfig, levels: int = 2) -> Any:
    if isinstance(turn, str):
        return repair_text(turn)
    if isinstance(turn, list) and levels > 1:
        return [_repair_turn(inner, data_config, levels - 1) for inner in turn]
    if not isinstance(turn, dict):
        return turn
    turn = _rename(turn, _KEYS_OF_TURN)
    with_true_or_false(turn)
    if is_tool_turn(turn, roles_by_name(data_config.speakers)):
        return turn  # its text is the output of a program, or empty beside a call
    if levels > 1 and is_turn(turn.get("message")):
        turn["message"] = _repair_turn(turn["message"], data_config, levels - 1)
    keyed = [] if is_turn(turn) else keyed_texts(turn, roles_by_name(data_config.speakers))
    texts = [key for _, key in keyed] or [text_key(turn)]
    for key in texts:
        if key in turn:
            turn[key] = _repair_texts(turn[key])
    repair_references(turn, turn.get(texts[-1]), repair_text, data_config.reasoning)
    return turn


def _repair_texts(value: Any, levels: int = 3) -> Any:
    """Repair a text, or the texts of its parts."""
    if isinstance(value, str):
        return repair_text(value)
    if isinstance(value, list) and levels:
        return [_repair_texts(item, levels - 1) for item in value]
    if isinstance(value, dict) and levels:
        return {
            key: _repair_texts(item, levels - 1) if key in TEXT_KEYS else item
            for key, item in value.items()
        }
    return value


def _is_empty(turn: Any, data_config: DataConfig) -> bool:
    if isinstance(turn, dict) and is_tool_turn(turn, roles_by_name(data_config.speakers)):
        return False
    text = turn.get(text_key(turn)) if isinstance(turn, dict) else turn
    return isinstance(text, str) and not text.strip()


def _ignore(problem: Problem) -> None:
    """Leave a fault of JSON in a string: the line is refused for it."""


def _in_right_encoding(text: str) -> str:
    import ftfy
    from ftfy.badness import is_bad

    repaired = ftfy.fix_encoding(text)
    return text if is_bad(repaired) or repaired.count("\ufffd") > text.count("\ufffd") else repaired
