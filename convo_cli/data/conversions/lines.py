"""The problem of a line that holds another format of data."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from convo_cli.data.conversions.chat_logs import export_in, replying_in_export
from convo_cli.data.conversions.commands import Conversion, by_chat_import, by_jq, jq_path
from convo_cli.data.problems import Problem
from convo_cli.data.shapes.items.turn_keys import LISTS, keys_of_turn
from convo_cli.wording import quoted

_EXPORTS = (
    ((b'"messages"', b'"from_id"'), "a Telegram export"),
    ((b'"messages"', b'"guild"', b'"channel"'), "a Discord export"),
)
_MESSENGER = (
    "{messages: [.messages | sort_by(.timestamp_ms)[] | select(.content) | "
    "{role: .sender_name, content}]}"
)
_GOOGLE = "{messages: [.messages[] | select(.text) | {role: .creator.name, content: .text}]}"
_SKYPE = (
    ".conversations[] | {messages: [.MessageList | sort_by(.originalarrivaltime)[] | "
    'select(.messagetype == "RichText" and .content) | {role: .from, content}]} | '
    "select(.messages[1])"
)
_CHATS = (
    ((b'"sender_name"', b'"timestamp_ms"'), "a Messenger or Instagram export", _MESSENGER),
    ((b'"creator"', b'"topic_id"'), "a Google Chat export", _GOOGLE),
    ((b'"MessageList"', b'"originalarrivaltime"'), "a Skype export", _SKYPE),
)
"""Exports by their keys, with the program that makes each chat one dialogue of named speakers."""
_OF_OBJECTS = re.compile(r'\{\s*"(?:[^"\\]|\\.){0,200}"\s*:\s*\{')
_KEY_OF_ALL = re.compile(
    r'"(data|dialogues|dialogs|conversations|examples|rows|train)"\s*:\s*\[\s*\{'
)
_LISTS = frozenset({"messages", "conversations"})
_MAPPABLE = frozenset({"unknown-shape", "missing-key", "unknown-speaker", "system-not-first"})
_MISREAD_KEYS = frozenset({"question_id", "chosen", "label", "context/0", "bot_id"})
"""Keys of the formats that also have the keys of a dialogue."""
_ROW_KEYS = frozenset(
    [
        "parent_id",
        "conversation_id",
        "conversationId",
        "conv_id",
        "dialogue_id",
        "dialogueId",
        "dialog_id",
        "dialogId",
        "session_id",
        "sessionId",
        "thread_id",
        "threadId",
        "chat_id",
        "chatId",
    ]
)
"""Keys of one message in an array whose messages may belong to several dialogues."""


def other_format(value: Any, *, is_dialogue: bool) -> Problem | None:
    """Return the problem of a line in a named format that is not a dialogue as it stands.

    ``is_dialogue`` is True if the line has the keys of a dialogue.
    """
    if isinstance(value, dict) and (export := export_in(value)) is not None:
        what, assistant = export
        return Problem("other-format", f"the line is {what}", advice=by_chat_import(assistant))
    if isinstance(value, list):
        return _messages(value)
    if is_dialogue and (not isinstance(value, dict) or not _may_be_misread(value)):
        return None
    # Imported here, because most files need none of its patterns.
    from convo_cli.data.conversions.named_formats import misread, recognise

    found = misread(value) if is_dialogue else recognise(value)
    return None if found is None else found.of_line()


def advice_for_text(key: str, text: str) -> str | Conversion:
    """Return the command for lines whose list of turns is a text with tags; "" for other texts."""
    from convo_cli.data.conversions.named_formats import tagged

    found = tagged(jq_path(key), text)
    return "" if found is None else found.of_line().advice


def _messages(items: list[Any]) -> Problem | None:
    """Return the problem of an array of messages that name their dialogue."""
    first = items[0] if items else None
    if not isinstance(first, dict) or _ROW_KEYS.isdisjoint(first):
        return None
    from convo_cli.data.conversions.named_formats import recognise

    if (found := recognise(first)) is None:
        return None
    message = f"the line is an array; each value is {found.what}"
    return Problem("other-format", message, advice=found.of_array())


def other_format_of_file(text: bytes) -> Problem | None:
    """Return the problem of a file whose JSON spans several lines, given its beginning."""
    decoded = text.decode("utf-8", "replace")
    for keys, what in _EXPORTS:
        if all(key in text for key in keys):
            advice = by_chat_import(replying_in_export(decoded))
            return Problem("other-format", f"the file is {what}", advice=advice)
    for keys, what, program in _CHATS:
        if all(key in text for key in keys):
            advice = by_jq(program, "write the messages as dialogues, then give the names roles")
            return Problem("other-format", f"the file is {what}", advice=advice)
    try:
        value, _ = json.JSONDecoder().raw_decode(decoded.lstrip("[ \t\r\n"))
    except (ValueError, RecursionError):
        return _unpacked(decoded, None)
    from convo_cli.data.conversions.named_formats import misread, recognise

    is_known = isinstance(value, dict) and not _LISTS.isdisjoint(value)
    found = None if is_known else recognise(value)
    if found is None and isinstance(value, dict):
        found = misread(value)
    if found is None:
        return _unpacked(decoded, value)
    if not decoded.startswith("["):
        return replace(found.of_line(), message=f"each value of the file is {found.what}")
    message = f"the file is an array; each value is {found.what}"
    return Problem("other-format", message, advice=found.of_array())


def _may_be_misread(value: dict[str, Any]) -> bool:
    """Return whether a line has a key of `_MISREAD_KEYS`, or a list of unusual turns."""
    return not _MISREAD_KEYS.isdisjoint(value) or any(
        isinstance(turns := value.get(key), list) and turns and _is_unusual(turns[0])
        for key in LISTS
    )


def _is_unusual(turn: Any) -> bool:
    """Return whether a turn is a pair with a number, or has a text and no speaker."""
    if isinstance(turn, list):
        return len(turn) == 2 and isinstance(turn[0], int)
    if not isinstance(turn, dict):
        return False
    speaker, text = keys_of_turn(tuple(turn))
    return speaker is None and text is not None and isinstance(turn[text], str)


def _unpacked(text: str, value: Any) -> Problem | None:
    """Return the problem of a file of dialogues that need a mapping, or stand under other keys."""
    if value is not None and _is_read(value):
        return None
    key = _KEY_OF_ALL.search(text)
    if text.startswith("["):
        if not isinstance(value, dict):
            return None
        what, program = "an array", ".[]"
    elif _OF_OBJECTS.match(text) and (value is None or _are_objects(value)):
        what, program = "an object of dialogues", ".[]"
    elif key is not None and (value is None or isinstance(value.get(key[1]), list)):
        what, program = f"an object with dialogues under {quoted(key[1])}", f".{key[1]}[]"
    else:
        return None
    advice = by_jq(program, "write one dialogue per line, then check that file")
    return Problem("other-format", f"the file is {what}", advice=advice)


def _are_objects(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, dict) for item in value.values())


def _is_read(value: Any) -> bool:
    """Return whether the value is a dialogue whose keys and speakers need no mapping."""
    from convo_cli.config.schema import DataConfig
    from convo_cli.data.shapes.turns import read_value

    codes: list[str] = []
    read_value(value, DataConfig(train=("unused",)), lambda problem: codes.append(problem.code))
    return _MAPPABLE.isdisjoint(codes)
