"""Reader of JSON Lines with one message each, also as Discord and Slack name the keys.

{"timestamp": …, "sender": …, "message": …}
{"timestamp": …, "author": {"name": …}, "content": …}
{"ts": …, "user": …, "text": …}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from convo_cli.importers.chats.phrases import NO_TEXT, SYSTEM, reason_to_drop
from convo_cli.importers.chats.times import seconds_of
from convo_cli.importers.json_values import iter_values
from convo_cli.importers.messages import Conversation, Counts, Message
from convo_cli.importers.source_files import Source

_SENDER_KEYS = ("sender", "sender_name", "from", "author", "user", "username", "name", "nick")
_TEXT_KEYS = ("message", "text", "content", "body")
_TIME_KEYS = ("timestamp", "timestamp_ms", "ts", "time", "date", "datetime", "created_at")
_NAME_KEYS = ("name", "username", "display_name", "id")


def recognise(source: Source) -> bool:
    """Return whether the first line has a sender, a text and a time."""
    if not source.is_single:
        return False
    line = source.head_text(source.names[0]).lstrip("[ \r\n\t").partition("\n")[0][:4096]
    return line.startswith("{") and all(
        any(f'"{key}":' in line or f'"{key}" :' in line for key in keys)
        for keys in (_SENDER_KEYS, _TEXT_KEYS, _TIME_KEYS)
    )


def read(source: Source, counts: Counts) -> Iterator[Conversation]:
    """Yield one conversation."""
    yield Conversation(source.where, _messages(source, counts))


def _messages(source: Source, counts: Counts) -> Iterator[Message]:
    for value in iter_values(source, source.names[0]):
        sender, text = name_of(_first(value, _SENDER_KEYS)), _first(value, _TEXT_KEYS)
        if sender is None:
            counts.dropped[SYSTEM] += 1
        elif not isinstance(text, str):
            counts.dropped[NO_TEXT] += 1
        elif (reason := reason_to_drop(text.strip())) is not None:
            counts.dropped[reason] += 1
        else:
            yield Message(sender, text, seconds_of(_first(value, _TIME_KEYS)))


def name_of(sender: Any) -> str | None:
    """Return the name in a text, or in an object with one; None if there is none."""
    if isinstance(sender, dict):
        sender = _first(sender, _NAME_KEYS)
    if isinstance(sender, int) and not isinstance(sender, bool):
        sender = str(sender)
    return sender if isinstance(sender, str) and sender.strip() else None


def _first(value: Any, keys: tuple[str, ...]) -> Any:
    if not isinstance(value, dict):
        return None
    return next((value[key] for key in keys if value.get(key) is not None), None)
