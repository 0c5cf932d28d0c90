"""Reader of Slack exports: a folder or zip with users.json and channel/2024-01-31.json.

A thread is a conversation of its own, with the message that it answers.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

from convo_cli.errors import DataError
from convo_cli.importers.chats.phrases import MEDIA, NO_TEXT, SYSTEM
from convo_cli.importers.chats.times import seconds_of
from convo_cli.importers.json_values import iter_values
from convo_cli.importers.messages import Conversation, Counts, Message
from convo_cli.importers.source_files import Source

_DAY = re.compile(r"(?:(?P<channel>[^\n]{1,300})/)?[0-9]{4}-[0-9]{2}-[0-9]{2}\.json")
_SPEECH = (None, "bot_message", "me_message", "thread_broadcast", "file_share", "file_comment")
_LINK = re.compile(r"<([@#!]?)([^<>|\n]{1,2000})(?:\|([^<>\n]{0,500}))?>")
_MAX_CHARACTERS = 2**27
"""Text of one channel, 128 Mi characters: threads are collected from all of its days."""


def recognise(source: Source) -> bool:
    """Return whether there are files of days, each with a list of Slack's messages."""
    days = [name for name in source.names if _DAY.fullmatch(name)]
    heads = (source.head_text(name) for name in days[:20])
    return any('"ts"' in head and head.lstrip().startswith("[") for head in heads)


def read(source: Source, counts: Counts) -> Iterator[Conversation]:
    """Yield a conversation for each channel and each thread."""
    names = _names_of_users(source)
    channels: dict[str, list[str]] = {}
    for name in source.names:
        if match := _DAY.fullmatch(name):
            channels.setdefault(match["channel"] or "", []).append(name)
    for channel, days in channels.items():
        talk: list[Message] = []
        threads: dict[str, list[Message]] = {}
        num_characters = 0
        for day in days:
            for value in iter_values(source, day):
                message = message_of(value, names, counts)
                if message is None:
                    continue
                num_characters += len(message.text)
                if num_characters > _MAX_CHARACTERS:
                    raise DataError(
                        f"{source.where}: the channel {channel} has more than "
                        f"{_MAX_CHARACTERS:,} characters",
                        hint="import its days in parts",
                    )
                thread = value.get("thread_ts")
                (threads.setdefault(str(thread), []) if thread else talk).append(message)
        for messages in (talk, *threads.values()):
            ordered = sorted(messages, key=lambda message: message.time or 0.0)
            yield Conversation(f"{source.where}: {channel}", ordered)


def message_of(value: Any, names: Mapping[str, str], counts: Counts) -> Message | None:
    """Return a message of Slack, or count why it is none."""
    if not isinstance(value, dict) or value.get("subtype") not in _SPEECH:
        counts.dropped[SYSTEM] += 1
        return None
    user = value.get("user") or value.get("bot_id") or ""
    profile = _object(value, "user_profile")
    speaker = names.get(str(user)) or value.get("username") or profile.get("real_name") or user
    text = _plain(value["text"], names).strip() if isinstance(value.get("text"), str) else ""
    if not speaker:
        counts.dropped[SYSTEM] += 1
    elif not text:
        counts.dropped[MEDIA if value.get("files") or value.get("attachments") else NO_TEXT] += 1
    else:
        return Message(str(speaker), text, seconds_of(value.get("ts")))
    return None


def _names_of_users(source: Source) -> dict[str, str]:
    """Return the name of each user id in users.json, as other people see it."""
    names: dict[str, str] = {}
    for file in source.names:
        if file.rpartition("/")[2] != "users.json":
            continue
        for user in iter_values(source, file):
            if not isinstance(user, dict):
                continue
            profile = _object(user, "profile")
            shown = (
                profile.get("display_name")
                or user.get("real_name")
                or profile.get("real_name")
                or user.get("name")
            )
            if isinstance(user.get("id"), str) and isinstance(shown, str):
                names[user["id"]] = shown
    return names


def _object(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = value.get(key)
    return inner if isinstance(inner, dict) else {}


def _plain(text: str, names: Mapping[str, str]) -> str:
    """Replace Slack's markup of mentions and links by what a reader sees."""

    def shown(match: re.Match[str]) -> str:
        sign, target, label = match[1], match[2], match[3]
        if sign == "@":
            return f"@{label or names.get(target, target)}"
        if sign in ("#", "!"):
            return f"{'#' if sign == '#' else '@'}{label or target.partition('^')[0]}"
        return label or target.removeprefix("mailto:")

    return html.unescape(_LINK.sub(shown, text))
