"""Reader of WhatsApp chats, as Android and iOS export them (.txt, or .zip with one).

A file is read twice: once for the form of its message starts and the order of its dates, and once
for its messages. A line that does not start a message continues the one before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from convo_cli.importers.chats.dates import OrderOfDates, Stamp, find_order, match_stamp, seconds_at
from convo_cli.importers.chats.phrases import (
    CALLS,
    MEDIA,
    SYSTEM,
    is_attachment,
    reason_to_drop,
    without_edit_mark,
)
from convo_cli.importers.messages import Conversation, Counts, Message
from convo_cli.importers.source_files import Source
from convo_cli.importers.text_lines import iter_lines, too_long

_NUM_FIRST_LINES = 5
_MAX_NAME_CHARACTERS = 100
_MAX_MESSAGE_CHARACTERS = 2**20
"""Longest message, 1 Mi characters; WhatsApp itself allows 65,536."""
_OWN = "\u200e"
"""The mark before what WhatsApp writes itself (iOS)."""
_SIGNS = " \u00a0\u202f\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\r"
_QUOTES = frozenset('"“”„«»')


class _Line(NamedTuple):
    number: int
    text: str
    stamp: Stamp | None
    """None if the line does not start a message."""


def recognise(source: Source) -> bool:
    """Return whether a text file begins with a date and a time."""
    return bool(_chat_names(source))


def read(source: Source, counts: Counts) -> Iterator[Conversation]:
    """Yield the conversation of each chat file of the source."""
    for name in _chat_names(source) or source.names[:1]:
        yield Conversation(name, _messages(source, name, counts))


def _chat_names(source: Source) -> list[str]:
    return [
        name
        for name in source.names
        if (source.is_single or name.lower().endswith(".txt")) and _is_chat(source.head_text(name))
    ]


def _is_chat(head: str) -> bool:
    lines = [line for line in head.split("\n", 40)[:40] if line.strip(_SIGNS)]
    return any(match_stamp(line) for line in lines[:_NUM_FIRST_LINES])


def _lines(source: Source, name: str) -> Iterator[_Line]:
    """Yield all lines with their stamps.

    iOS ends messages with CR LF, but the lines inside a message with LF alone: if most messages at
    the beginning come after CR LF, only such lines start messages.
    """
    ends = Counter(before.endswith("\r") for before in _lines_before_starts(source.head_text(name)))
    has_two_ends = ends[True] > ends[False]
    may_start = True
    for number, text in iter_lines(source, name):
        yield _Line(number, text.removesuffix("\r"), match_stamp(text) if may_start else None)
        may_start = text.endswith("\r") or not has_two_ends


def _lines_before_starts(head: str) -> Iterator[str]:
    lines = head.split("\n")
    return (before for before, line in pairwise(lines) if match_stamp(line))


def _messages(source: Source, name: str, counts: Counts) -> Iterator[Message]:
    where = source.shown(name)
    stamped = ((line.number, line.stamp) for line in _lines(source, name) if line.stamp is not None)
    order = find_order(where, stamped)
    if order.note:
        counts.notes.append(f"{where}: {order.note}")
    stamp: Stamp | None = None
    texts: list[str] = []
    num_characters = 0
    for line in _lines(source, name):
        if line.stamp is not None and line.stamp.style == order.style:
            yield from _message(stamp, texts, order, counts)
            stamp, texts, num_characters = line.stamp, [line.text[line.stamp.end :]], 0
            continue
        texts.append(line.text)
        num_characters += len(line.text) + 1
        if num_characters > _MAX_MESSAGE_CHARACTERS:
            raise too_long(where, line.number, "the message")
    yield from _message(stamp, texts, order, counts)


def _message(
    stamp: Stamp | None, lines: list[str], order: OrderOfDates, counts: Counts
) -> Iterator[Message]:
    """Yield the message of these lines, or count why they are none."""
    if stamp is None:  # before the first message
        counts.dropped[SYSTEM] += len([line for line in lines if line.strip()])
        return
    name, text = _speaker_and_text(lines[0])
    if name is None:
        is_call = reason_to_drop(lines[0].strip(_SIGNS)) == CALLS
        counts.dropped[CALLS if is_call else SYSTEM] += 1
        return
    speech, reason = _speech([text, *lines[1:]], is_ios=order.style == "[]")
    if reason is not None:
        counts.dropped[reason] += 1
    if speech:
        counts.num_continuations += len(lines) - 1
        yield Message(name, speech, seconds_at(stamp, order.order))


def _speaker_and_text(line: str) -> tuple[str | None, str]:
    """Return who speaks and what; None for a line that WhatsApp wrote about the chat."""
    before, colon, text = line.partition(": ")
    if not colon and line.endswith(":"):  # without a text
        before, colon = line[:-1], ":"
    name = before.strip(_SIGNS)
    is_name = 0 < len(name) <= _MAX_NAME_CHARACTERS and _QUOTES.isdisjoint(name)
    return (name, text) if colon and is_name and "://" not in name else (None, "")


def _speech(lines: list[str], *, is_ios: bool) -> tuple[str, str | None]:
    """Return what was said, and the reason for which something was dropped."""
    lines = [line.rstrip() for line in lines]
    if is_ios:
        first, mark, added = lines[0].rpartition(_OWN)
        added = added.strip(_SIGNS)
        reason = reason_to_drop(added) if mark else None
        if reason == MEDIA and not without_edit_mark(added):
            reason = None
        if reason is not None:
            caption = first.strip(_SIGNS) if added.startswith("<") else ""
            rest = lines[1:] if reason == MEDIA else []
            return "\n".join(line for line in [caption, *rest] if line), reason
        if mark and not first.strip(_SIGNS) and without_edit_mark(added):
            return "", SYSTEM
    elif is_attachment(lines[0].strip(_SIGNS)):
        return "\n".join(lines[1:]).strip(), MEDIA
    text = without_edit_mark("\n".join(lines).strip(_SIGNS + "\n"))
    reason = reason_to_drop(text.strip(_SIGNS))
    return ("", reason) if reason is not None else (text, None)
