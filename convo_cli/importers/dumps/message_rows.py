"""Dialogues of a table that has one message a row.

Rows belong together if they name the same dialogue, or reply to each other. In one dialogue they
follow their replies, their numbers, or the order of the file. A table that names no dialogue is one
chat.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from convo_cli.config.schema import SpeakersConfig
from convo_cli.data.shapes.speakers import roles_by_name
from convo_cli.importers.chats.times import seconds_of
from convo_cli.importers.dumps.field_names import MessageFields, plain_name
from convo_cli.importers.dumps.message_store import MAX_MESSAGES, MessageStore, StoredMessage
from convo_cli.importers.dumps.reply_paths import best_paths
from convo_cli.importers.messages import Conversation, Counts, Message

Row = Mapping[str, Any]

TOO_LONG = f"dialogues of more than {MAX_MESSAGES:,} messages"
CROWDED = "dialogues of more than two speakers without a role"
_MAX_NAMES = 1000
_ROLE_FLAGS = {"inbound", "isuser"}
_NO = (False, 0, "0", "false", "False", "FALSE")


def read_messages(
    rows: Iterable[Row],
    fields: MessageFields,
    where: str,
    counts: Counts,
    assistants: tuple[str, ...],
) -> Iterator[Any]:
    """Yield the messages form of each dialogue.

    A table that is one chat of people without roles is a `Conversation` instead, and so is each
    dialogue if ``assistants`` names people: --assistant says who is the assistant.
    """
    with MessageStore.opened(where) as store:
        store.add(message for row in rows if (message := _stored(row, fields, counts)) is not None)
        if fields.parent and not fields.groups and (number := store.find_threads()):
            counts.dropped["messages that are repeated or reply in a circle"] += number
        names = store.speakers(_MAX_NAMES)
        has_roles = all(name.casefold() in _ROLES for name in names)
        if not has_roles and not fields.groups and not fields.parent:
            yield Conversation(where, _spoken(store.messages()))
            return
        for messages in store.dialogues():
            if len(messages) > MAX_MESSAGES:
                counts.left_out[TOO_LONG] += 1
                continue
            paths = list(_paths(messages, fields))
            num_good = sum(message.is_good for message in messages)
            if num_others := num_good - sum(map(len, paths)):
                counts.dropped[_OTHER_REPLIES] += num_others
            for path in paths:
                if assistants and not has_roles:
                    yield Conversation(where, _spoken(path))
                elif (turns := _turns(path, counts)) is not None:
                    yield {"messages": turns}


_OTHER_REPLIES = "replies that are not on the best path of their tree"
_ROLES = roles_by_name(SpeakersConfig())
_NAME_KEYS = ("role", "from", "speaker", "author", "name")


def with_roles(dialogue: Any, assistants: tuple[str, ...]) -> Any:
    """Return a dialogue in which the named people are assistants, and others without a role users.

    Only lists of turns that name their speakers change.
    """
    if isinstance(dialogue, dict):
        return {
            key: with_roles(value, assistants) if isinstance(value, list) else value
            for key, value in dialogue.items()
        }
    return [_with_role(turn, assistants) if isinstance(turn, dict) else turn for turn in dialogue]


def _with_role(turn: dict[str, Any], assistants: tuple[str, ...]) -> dict[str, Any]:
    key = next((key for key in _NAME_KEYS if isinstance(turn.get(key), str)), None)
    if key is None or turn[key].casefold() in _ROLES:
        return turn
    is_assistant = turn[key].casefold() in {name.casefold() for name in assistants}
    return {**turn, key: "assistant" if is_assistant else "user"}


def _stored(row: Row, fields: MessageFields, counts: Counts) -> StoredMessage | None:
    text = row.get(fields.text)
    if not isinstance(text, str) or not text.strip():
        counts.dropped["no text"] += 1
        return None
    if fields.state and row.get(fields.state) not in ("ready_for_export", None, ""):
        counts.dropped["messages of unfinished trees"] += 1
        return None
    is_good = True
    if fields.deleted and row.get(fields.deleted) not in (*_NO, None, ""):
        counts.dropped["deleted"] += 1
        is_good = False
    elif fields.accepted and row.get(fields.accepted) in _NO:
        counts.dropped["rejected by the reviewers"] += 1
        is_good = False
    ident, parent = _name(row.get(fields.ident)), _name(row.get(fields.parent))
    return StoredMessage(
        dialogue="\0".join(_name(row.get(key)) or "" for key in fields.groups),
        ident=ident,
        parent=None if parent == ident else parent,
        speaker=_speaker(row.get(fields.speaker), fields.speaker),
        text=text.replace("_comma_", ",") if plain_name(fields.speaker) == "speakeridx" else text,
        place=_number(row.get(fields.order)),
        rank=_number(row.get(fields.rank)),
        time=seconds_of(row.get(fields.time)),
        is_good=is_good,
    )


def _paths(messages: list[StoredMessage], fields: MessageFields) -> Iterable[list[StoredMessage]]:
    if fields.parent and any(message.parent is not None for message in messages):
        return best_paths(messages)
    messages = [message for message in messages if message.is_good]
    if all(message.place is not None for message in messages):
        messages.sort(key=lambda message: message.place or 0)
    return [messages] if messages else []


def _spoken(messages: Iterable[StoredMessage]) -> Iterator[Message]:
    for message in messages:
        yield Message(message.speaker or "", message.text, message.time)


def _turns(messages: list[StoredMessage], counts: Counts) -> list[dict[str, str]] | None:
    """Return the turns; messages of one speaker in a row are one turn."""
    turns: list[dict[str, str]] = []
    roles = _roles([message.speaker for message in messages])
    if roles is None:
        counts.left_out[CROWDED] += 1
        return None
    before: str | None = None
    for role, message in zip(roles, messages, strict=True):
        if turns and message.speaker is not None and message.speaker == before:
            turns[-1]["content"] += f"\n{message.text}"
        else:
            turns.append({"role": role, "content": message.text})
        before = message.speaker
    return turns


def _roles(speakers: list[str | None]) -> list[str] | None:
    """Return the role of each message; None if the names do not tell.

    Without names, users and assistants alternate. Of two names without a role, the first speaker
    is the user.
    """
    names = list(dict.fromkeys(speaker for speaker in speakers if speaker is not None))
    if not names:
        return [("user", "assistant")[number % 2] for number in range(len(speakers))]
    known: dict[str, str] = {name: _ROLES.get(name.casefold(), "") for name in names}
    unknown = [name for name in names if not known[name]]
    if "assistant" in known.values():
        roles = {name: role or "user" for name, role in known.items()}
    elif len(unknown) == 1 and "user" in known.values():
        roles = {name: role or "assistant" for name, role in known.items()}
    elif len(unknown) <= 2 and not any(known.values()):
        roles = dict(zip(unknown, ("user", "assistant"), strict=False))
    else:
        return None
    return [roles.get(speaker or "", "user") for speaker in speakers]


def _name(value: Any) -> str | None:
    """Return an id or a name as text; None for none. Tables turn the number 12 into 12.0."""
    if isinstance(value, dict):
        value = value.get("name") or value.get("id")
    if value is None or isinstance(value, (list, dict)) or value != value:
        return None
    text = str(value).strip()
    return text.removesuffix(".0") or None


def _speaker(value: Any, column: str) -> str | None:
    if plain_name(column) in _ROLE_FLAGS:
        return "assistant" if value in _NO else "user"
    return _name(value)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
