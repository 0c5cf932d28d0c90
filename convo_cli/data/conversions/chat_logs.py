"""Logs and exports of chats: how their lines begin, and the first person who replies to another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_MARK = "[\u200e\u200f]{0,2}"
_DATE = (
    rf"\d{{1,4}}{_MARK}(?:[./-] ?|[年년] ?){_MARK}\d{{1,2}}{_MARK}"
    rf"(?:[./-] ?|[月월] ?){_MARK}\d{{1,4}}"
)
_TIME = r"\d{1,2}(?:[:.]| h )\d{2}"
# A comma after the time is that of a table, unless a name and a colon follow.
_NO_TABLE = r"(?![\d:.]*(?:[;|\t\"]|,(?! [^:,\n]{1,60}: )))"
# [02/01/24, 10:00:00] Ada: Hi · [12:00] <ada> Hi · 2024-01-02 10:00:00 ada: Hi · <ada> Hi
_LINE = re.compile(
    rf"{_MARK}\[?{_MARK}{_DATE}[^\d\n\t;|\"]{{1,16}}{_TIME}{_NO_TABLE}"
    rf"|{_MARK}\[?{_MARK}{_TIME}(?::\d{{2}})?,? {_DATE}(?:\] ?| [-–] )"
    r"|\[?\d{1,2}:\d{2}(?::\d{2})?\]? (?:<|\* |-!-|\*\*\*|[^ :]{1,40}: )"
    r"|(?:[A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} |\*{4} BEGIN LOGGING AT |--- Log opened )"
    r"|<[^<>|/ ]{1,40}> "
)
_NICK = re.compile(r"[^<\n]{0,40}<[ @+%&~!]?([^<>|/ ]{1,40})>[ \t]")
_NAME = re.compile(
    r"[^\n]{4,40}?(?:\] ?| [-–] |[전후] ?\d{1,2}:\d{2}, )"
    rf"[~ \u00a0\u202f]{{0,3}}{_MARK}([^:\n]{{1,60}}): "
)
_TELEGRAM = re.compile(r'"from": ?"([^"\\]{1,60})"')
_DISCORD = re.compile(r'"author": ?\{[^{}]{0,400}?"name": ?"([^"\\]{1,60})"')


def is_chat_log(lines: Sequence[str]) -> bool:
    """Return whether most lines begin with a time or a nickname."""
    return 2 * sum(_LINE.match(line) is not None for line in lines) > len(lines)


def replying_in_log(lines: Iterable[str]) -> str:
    """Return the second person of a log; empty if these lines have only one."""
    found = (_NICK.match(line) or _NAME.match(line) for line in lines)
    return _second(match[1].strip() for match in found if match)


def replying_in_export(text: str) -> str:
    """Return the second person of an export of Telegram or Discord, given its beginning."""
    return _second(_DISCORD.findall(text)) or _second(_TELEGRAM.findall(text))


def export_in(value: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what export of a chat a value is, with the first person who replies; None if none."""
    chats = value.get("chats")
    is_account = isinstance(chats, dict) and isinstance(chats.get("list"), list)
    messages = value.get("messages")
    if not isinstance(messages, list):
        return ("a Telegram export", "") if is_account else None
    first = messages[0] if messages else None
    if not isinstance(first, dict):
        return None
    if "from_id" in first or "actor_id" in first:
        return "a Telegram export", _second(_names(messages, "from"))
    if "author" in first and "guild" in value and "channel" in value:
        return "a Discord export", _second(_names(messages, "author"))
    return None


def _names(messages: Iterable[Any], key: str) -> Iterator[str]:
    for message in messages:
        name = message.get(key) if isinstance(message, dict) else None
        name = name.get("name") if isinstance(name, dict) else name
        if isinstance(name, str) and name:
            yield name


def _second(names: Iterable[str]) -> str:
    return next(iter(list(dict.fromkeys(names))[1:2]), "")
