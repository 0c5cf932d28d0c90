"""The problem of a line that holds another format of data."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from convo_cli.data.conversions.chat_logs import export_in, replying_in_export
from convo_cli.data.conversions.commands import Conversion, by_chat_import, jq_path
from convo_cli.data.problems import Problem

_EXPORTS = (
    ((b'"messages"', b'"from_id"'), "a Telegram export"),
    ((b'"messages"', b'"guild"', b'"channel"'), "a Discord export"),
)
_LISTS = frozenset({"messages", "conversations"})
_MISREAD_KEYS = frozenset({"question_id", "chosen", "label"})
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
    if is_dialogue and (not isinstance(value, dict) or _MISREAD_KEYS.isdisjoint(value)):
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
    try:
        value, _ = json.JSONDecoder().raw_decode(decoded.lstrip("[ \t\r\n"))
    except (ValueError, RecursionError):
        return None
    from convo_cli.data.conversions.named_formats import misread, recognise

    found = recognise(value) or (misread(value) if isinstance(value, dict) else None)
    if found is None or (isinstance(value, dict) and not _LISTS.isdisjoint(value)):
        return None
    if not decoded.startswith("["):
        return replace(found.of_line(), message=f"each value of the file is {found.what}")
    message = f"the file is an array; each value is {found.what}"
    return Problem("other-format", message, advice=found.of_array())
