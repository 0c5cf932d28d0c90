"""Reader of Discord channels, as DiscordChatExporter writes them (JSON; one file or several)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from convo_cli.errors import DataError
from convo_cli.importers.chats.phrases import CALLS, MEDIA, NO_TEXT, SYSTEM
from convo_cli.importers.chats.plain_lines import name_of
from convo_cli.importers.chats.times import seconds_of
from convo_cli.importers.json_values import iter_events
from convo_cli.importers.messages import Conversation, Counts, Message
from convo_cli.importers.source_files import Source

_INSIDE = frozenset([(), ("messages",)])
_SPEECH = ("Default", "Reply", "ChatInputCommand", "ThreadStarterMessage", "0", "19", "20", "21")
_MARKUP = re.compile(r"<a?:(\w{1,64}):[0-9]{1,24}>|<t:([0-9]{1,12})(?::[A-Za-z])?>")
_OWN_MESSAGES = re.compile(
    r"(?:^|/)messages/(?:c?[0-9]+/messages\.(?:json|csv)|index\.json)$", re.IGNORECASE
)
_PACKAGE_KEYS = ('"ID"', '"Timestamp"', '"Contents"')


def recognise(source: Source) -> bool:
    """Return whether a file is an exported channel, or the source Discord's own data package."""
    return bool(_names(source)) or _is_package(source)


def read(source: Source, counts: Counts) -> Iterator[Conversation]:
    """Yield the conversation of each channel; DataError for Discord's own data package."""
    if _is_package(source):
        raise DataError(
            f"{source.where}: Discord's data package holds only your own messages",
            hint="export the channels with DiscordChatExporter as JSON, and import those files",
        )
    for name in _names(source) or source.names[:1]:
        yield Conversation(source.shown(name), _messages(source, name, counts))


def _names(source: Source) -> list[str]:
    names = [name for name in source.names if source.is_single or name.endswith(".json")]
    return [name for name in names if _is_channel(source.head_text(name))]


def _is_channel(head: str) -> bool:
    keys = ("guild", "channel", "messages")
    return head.lstrip().startswith("{") and all(f'"{key}"' in head for key in keys)


def _is_package(source: Source) -> bool:
    if any(_OWN_MESSAGES.search(name) for name in source.names):
        return True
    head = source.head_text(source.names[0]) if source.is_single else ""
    return all(key in head[:4096] for key in _PACKAGE_KEYS)


def _messages(source: Source, name: str, counts: Counts) -> Iterator[Message]:
    for event in iter_events(source, name, _INSIDE):
        if event.path == ("messages", "*") and not event.is_end:
            yield from _message(event.value, counts)


def _message(value: Any, counts: Counts) -> Iterator[Message]:
    if not isinstance(value, dict) or str(value.get("type", "Default")) not in _SPEECH:
        kind = str(value.get("type")) if isinstance(value, dict) else ""
        counts.dropped[CALLS if kind in ("Call", "3") else SYSTEM] += 1
        return
    content, speaker = value.get("content"), name_of(value.get("author"))
    text = (
        _MARKUP.sub(lambda found: f":{found[1]}:" if found[1] else "", content).strip()
        if isinstance(content, str)
        else ""
    )
    if not text:
        has_media = any(value.get(key) for key in ("attachments", "stickers", "embeds"))
        counts.dropped[MEDIA if has_media else NO_TEXT] += 1
    elif speaker is None:
        counts.dropped[SYSTEM] += 1
    else:
        yield Message(speaker, text, seconds_of(value.get("timestamp")))
