"""Reader of a list of turns: strings, objects, pairs of [user, assistant], and lists inside it.

Strings alternate between the speakers. The speaker of a string beside objects is not the one of the
turn before it; if it is the one of the turn after it, the list is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convo_cli.data.dialogue import Role
from convo_cli.data.problems import kind_of, member
from convo_cli.data.shapes.collector import NOTHING, TurnCollector
from convo_cli.data.shapes.items.entries import keyed_texts
from convo_cli.data.shapes.items.turn_keys import SPEAKER_KEYS, TEXT_KEYS, is_turn, keys_of_turn
from convo_cli.data.shapes.masks import stated_training
from convo_cli.data.shapes.parts import TurnList
from convo_cli.data.shapes.speakers import NAMES_IN_PAIRS
from convo_cli.data.shapes.table import is_list_of_pairs
from convo_cli.data.shapes.tools.tool_calls import ToolTurn, read_tool_turn
from convo_cli.wording import quoted

_MAX_KEYS_SHOWN = 8
_OTHER: Mapping[Role, Role] = {"user": "assistant", "assistant": "user"}
_PARLAI_NAMES: Mapping[str, tuple[Role, str]] = {"teacher": ("user", "")}
"""Speakers of ParlAI, which names them in "id"; elsewhere a teacher may be the assistant."""


class ListReader:
    """Reads lists of turns into ``talk``."""

    def __init__(self, talk: TurnCollector, first_speaker: Role) -> None:
        self._talk = talk
        self._first_speaker = first_speaker

    def read(self, turns: TurnList) -> None:
        """Read the turns; an inner list is read like the list if it stands alone, or is nested."""
        items, path = turns.value, turns.path
        if not items:
            self._talk.refuse("empty-dialogue", path, "the list of turns is empty")
        elif is_list_of_pairs(items):
            self._pairs(items, path)
        elif _is_nested(turns):
            self._talk.names = {**_PARLAI_NAMES, **self._talk.names}
            for index, inner in enumerate(items):
                at = f"{path}[{index}]"
                if inner and is_list_of_pairs(inner):
                    self._pairs(inner, at)
                else:
                    self._items(turns._replace(value=inner, path=at), is_inner=True)
        elif turns.strings == "alternate" and _is_mixed(items):
            self._mixed(turns)
        else:
            self._items(turns)

    def _items(self, turns: TurnList, *, is_inner: bool = False) -> None:
        roles = self._alternating(turns)
        for index, item in enumerate(turns.value):
            at = f"{turns.path}[{index}]"
            if not isinstance(item, str):
                self._item(item, at, index, turns.code, is_inner=is_inner)
            elif turns.strings == "refuse":
                self._talk.refuse("missing-key", at, "the turn is a string without a speaker")
            elif turns.strings != "alternate" and _is_mixed(turns.value):
                self._talk.refuse("mixed-turns", at, "the turn is a string, but others are objects")
            else:
                self._talk.add(roles[index % 2], item, at, index=index)

    def _alternating(self, turns: TurnList) -> tuple[Role, Role]:
        first = self._first_speaker
        if turns.strings.startswith("end"):
            last: Role = "user" if turns.strings == "end on user" else "assistant"
            first = last if len(turns.value) % 2 else _OTHER[last]
        return first, _OTHER[first]

    def _mixed(self, turns: TurnList) -> None:
        """Read strings beside objects."""
        before: Role | None = None
        concluded = ""  # path of the item before, if it is a string
        for index, item in enumerate(turns.value):
            at = f"{turns.path}[{index}]"
            num_turns = len(self._talk.turns)
            if isinstance(item, str):
                before, concluded = _OTHER[before] if before else self._first_speaker, at
                self._talk.add(before, item, at, index=index)
                continue
            self._item(item, at, index, turns.code)
            roles = [turn.role for _, turn in self._talk.turns[num_turns:]]
            spoken = [role for role in roles if role in _OTHER]
            if concluded and spoken and spoken[0] == before:
                message = f"the text has no speaker, and the next turn is of the {before}, too"
                self._talk.refuse("mixed-turns", concluded, message)
            if spoken:
                before, concluded = spoken[-1], ""

    def _item(self, item: Any, path: str, index: int, code: str, *, is_inner: bool = False) -> None:
        if isinstance(item, dict):
            self._entry(item, path, index, is_inner=is_inner)
        elif code == "history" and isinstance(item, list) and is_list_of_pairs([item]):
            self._pair(item, path)
        else:
            message = f"the turn is {kind_of(item)}, not a string or an object"
            self._talk.refuse(code, path, message)

    def _pairs(self, pairs: list[Any], path: str) -> None:
        """Read pairs of [user, assistant]; of [speaker, text] if all begin with different names."""
        names = {name and name.strip() for name, _ in pairs}
        is_named = len(names) > 1 and names <= NAMES_IN_PAIRS
        for index, pair in enumerate(pairs):
            at = f"{path}[{index}]"
            if not is_named:
                self._pair(pair, at)
            elif (role := self._talk.role_of(pair[0].strip(), f"{at}[0]")) is not None:
                self._talk.add(role, pair[1], f"{at}[1]", index=index)

    def _pair(self, pair: list[Any], path: str) -> None:
        self._talk.add("user", pair[0], f"{path}[0]")
        self._talk.add("assistant", pair[1], f"{path}[1]")

    def _entry(self, entry: dict[str, Any], path: str, index: int, *, is_inner: bool) -> None:
        speaker, text = keys_of_turn(tuple(entry))
        if speaker is None and is_inner and isinstance(entry.get("id"), str):
            speaker = "id"
        if speaker is not None and not self._talk.is_plain(entry, speaker, text):
            roles, refuse = self._talk.roles, self._talk.refuse
            tool = read_tool_turn(entry, speaker, text, path, roles, refuse)
            if tool is not None:
                self._tool_turn(entry, tool, (speaker, text), path, index)
                return
        if speaker is not None and text is not None:
            if text == "message" and is_turn(entry[text]):
                self._turn_inside(entry, path, index)
                return
            # A good turn with two keys has nothing but a speaker and a text.
            is_trained = self._stated(entry, path) if len(entry) > 2 else None
            self._turn(entry, speaker, text, path, index, is_trained)
        elif is_turn(entry.get("message")):
            self._turn_inside(entry, path, index)
        elif keyed := keyed_texts(entry, self._talk.roles):
            is_trained = self._stated(entry, path)
            names = [key for _, key in keyed]
            self._talk.note_unread(entry, path, names, keyed[-1].role)
            for role, key in keyed:
                at = index if role == "system" else -1
                self._add(role, entry, key, path, at, is_trained)
        else:
            if speaker is None:
                self._talk.refuse("missing-key", path, _missing("speaker", SPEAKER_KEYS, entry))
            if text is None:
                self._talk.refuse("missing-key", path, _missing("text", TEXT_KEYS, entry))
            self._stated(entry, path)

    def _tool_turn(
        self,
        entry: dict[str, Any],
        tool: ToolTurn,
        keys: tuple[str, str | None],
        path: str,
        index: int,
    ) -> None:
        is_trained = self._stated(entry, path) if len(entry) > 2 else None
        self._talk.note_unread(entry, path, (*keys, *tool.keys), tool.role, is_call=bool(tool.data))
        self._talk.add(
            tool.role,
            tool.text,
            member(path, keys[1]) if keys[1] else path,
            index=index,
            is_trained=is_trained,
            beside=entry if len(entry) > 2 else NOTHING,
            at=path,
            tool_data=tool.data,
        )

    def _turn_inside(self, entry: dict[str, Any], path: str, index: int) -> None:
        """Read the turn under the key ``message``; the object around it may state the mask."""
        inner, at = entry["message"], f"{path}.message"
        stated = {self._stated(entry, path), self._stated(inner, at)} - {None}
        if len(stated) > 1:
            message = "the turn and the object around it contradict each other"
            self._talk.refuse("train-conflict", path, message)
        self._talk.note_unread(entry, path, ("message",))
        speaker, text = keys_of_turn(tuple(inner))
        self._turn(inner, str(speaker), str(text), at, index, next(iter(stated), None))

    def _turn(
        self,
        turn: dict[str, Any],
        speaker: str,
        text: str,
        path: str,
        index: int,
        is_trained: bool | None,
    ) -> None:
        role = self._talk.role_of(turn[speaker], f"{path}.{speaker}")
        if len(turn) > 2:
            self._talk.note_unread(turn, path, (speaker, text), role)
        if role is not None:
            self._add(role, turn, text, path, index, is_trained)

    def _add(
        self,
        role: Role,
        entry: dict[str, Any],
        key: str,
        path: str,
        index: int,
        is_trained: bool | None,
    ) -> None:
        self._talk.add(
            role,
            entry[key],
            member(path, key),
            index=index,
            is_trained=is_trained,
            beside=entry if len(entry) > 2 or key not in TEXT_KEYS else NOTHING,
            at=path,
        )

    def _stated(self, entry: dict[str, Any], path: str) -> bool | None:
        return stated_training(entry, path, self._talk.refuse)


def _is_mixed(items: list[Any]) -> bool:
    return {str, dict} <= {type(item) for item in items}


def _is_nested(turns: TurnList) -> bool:
    """Return whether the list holds one list of turns, or several that follow each other."""
    items = turns.value
    if turns.code != "not-a-turn" or not all(isinstance(item, list) and item for item in items):
        return False
    if turns.path == "$":
        return False
    is_of_objects = all(isinstance(turn, dict) for item in items for turn in item)
    return len(items) == 1 or (turns.is_nested and is_of_objects)


def _missing(what: str, keys: tuple[str, ...], turn: Mapping[str, Any]) -> str:
    *most, last = map(quoted, keys)
    has = f"only {listed_keys(turn)}" if turn else "no keys"
    return f"the turn has no {what}: it needs a key {', '.join(most)} or {last}, and has {has}"


def listed_keys(value: Mapping[str, Any]) -> str:
    """Return the first keys of an object, for a message."""
    shown = ", ".join(quoted(key) for key in list(value)[:_MAX_KEYS_SHOWN])
    return f"{shown}, …" if len(value) > _MAX_KEYS_SHOWN else shown
