"""Reader of Telegram exports: result.json of one chat or of a whole account, or one chat a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from convo_cli.importers.chats.phrases import CALLS, MEDIA, NO_TEXT, SYSTEM
from convo_cli.importers.chats.times import seconds_of
from convo_cli.importers.json_values import Event, iter_events
from convo_cli.importers.messages import Conversation, Counts, Message
from convo_cli.importers.source_files import Source

_LISTS = ("chats", "left_chats")
_INSIDE = frozenset(
    [
        (),
        ("messages",),
        *(
            path
            for name in _LISTS
            for path in (
                (name,),
                (name, "list"),
                (name, "list", "*"),
                (name, "list", "*", "messages"),
            )
        ),
    ]
)
_CHAT_TYPES = ("personal_chat", "bot_chat", "private_", "public_", "saved_messages")


def recognise(source: Source) -> bool:
    """Return whether a file looks like a chat or an account of Telegram."""
    return bool(_names(source))


def read(source: Source, counts: Counts) -> Iterator[Conversation]:
    """Yield the conversation of each chat."""
    for name in _names(source) or source.names[:1]:
        events = iter_events(source, name, _INSIDE)
        for event in events:
            if _is_message(event):
                yield Conversation(source.shown(name), _messages(event, events, counts))


def _names(source: Source) -> list[str]:
    names = [name for name in source.names if source.is_single or name.endswith("result.json")]
    return [name for name in names if _is_export(source.head_text(name))]


def _is_export(head: str) -> bool:
    if not head.lstrip().startswith("{"):
        return False
    has_type = '"type"' in head and any(f'"{kind}' in head for kind in _CHAT_TYPES)
    is_account = any(f'"{name}"' in head for name in _LISTS) and '"list"' in head
    is_line = all(f'"{key}"' in head for key in ("messages", "from", "text")) and (
        '"type": "message"' in head or '"type":"message"' in head
    )
    return (has_type and '"messages"' in head) or (is_account and '"about"' in head) or is_line


def _is_message(event: Event) -> bool:
    return event.path[-2:] == ("messages", "*")


def _messages(first: Event, events: Iterator[Event], counts: Counts) -> Iterator[Message]:
    """Yield the messages of one chat, up to the end of their list."""
    event: Event | None = first
    while event is not None and not (event.is_end and event.path == first.path[:-1]):
        if _is_message(event):
            yield from _message(event.value, counts)
        event = next(events, None)


def _message(value: Any, counts: Counts) -> Iterator[Message]:
    if not isinstance(value, dict):
        counts.dropped[SYSTEM] += 1
        return
    if value.get("type", "message") != "message":
        counts.dropped[CALLS if "call" in str(value.get("action")) else SYSTEM] += 1
        return
    text = _text(value.get("text")).strip()
    speaker = value.get("from") or value.get("from_id")
    if not text:
        has_media = any(
            key in value for key in ("media_type", "photo", "file", "location_information")
        )
        counts.dropped[MEDIA if has_media or "poll" in value else NO_TEXT] += 1
    elif not isinstance(speaker, (str, int)):
        counts.dropped[SYSTEM] += 1
    else:
        time = seconds_of(value.get("date_unixtime")) or seconds_of(value.get("date"))
        yield Message(str(speaker), text, time)


def _text(value: Any) -> str:
    """Join the parts of a text: strings, and objects for links, mentions and other entities."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return ""
    parts = (part.get("text") if isinstance(part, dict) else part for part in value)
    return "".join(part for part in parts if isinstance(part, str))
