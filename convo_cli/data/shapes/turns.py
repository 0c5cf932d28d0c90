"""Reader of one decoded line: its turns, and the keys that are not read.

A line is an object of one of the `SHAPES`, or a list: ``["Hello", "Hi!"]`` alternates between the
speakers, data.first_speaker first; ``[{"role": "user", "content": "Hello"}, …]`` (also from/value
and speaker/text) names them. An object may have its system turn in a key of its own. A dialogue
that is an object, and a turn with a role, may state whether they are trained on (see `masks`). An
assistant turn may have reasoning beside its text (see `reasoning`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from convo_cli.data.conversions.lines import other_format
from convo_cli.data.dialogue import Role
from convo_cli.data.problems import ProblemSink, kind_of, member, refuse
from convo_cli.data.shapes.collector import NOTHING, LocatedTurn, TurnCollector
from convo_cli.data.shapes.known_keys import SPEAKER_KEYS, TEXT_KEYS
from convo_cli.data.shapes.mapped.mapping import read_mapped
from convo_cli.data.shapes.mapped.steps import columns_of
from convo_cli.data.shapes.masks import stated_training
from convo_cli.data.shapes.reasoning import reasoning_keys
from convo_cli.data.shapes.table import (
    SHAPES,
    Shape,
    Text,
    TurnList,
    is_array_of_dialogues,
    shape_of,
)
from convo_cli.data.shapes.tools.tool_calls import (
    definitions_of,
    keys_of_tools,
    read_tool_turn,
)
from convo_cli.data.shapes.tools.tool_links import linked
from convo_cli.data.shapes.unread import UnreadItem
from convo_cli.wording import counted, quoted

if TYPE_CHECKING:
    from convo_cli.config.schema import DataConfig

_PLURALS: Mapping[type, str] = {str: "strings", dict: "objects"}
_MAX_KEYS_SHOWN = 8


class LineReading(NamedTuple):
    """The content of one line: the turns, and the keys that are not read."""

    turns: list[LocatedTurn]
    unread: list[UnreadItem]
    num_line_ends: int = 0
    """Texts with carriage returns, which became newlines."""


def read_value(
    value: Any, data_config: DataConfig, found: ProblemSink = refuse
) -> LineReading | None:
    """Read one decoded line; None if it has an error. Problems go to ``found``."""
    if (columns := columns_of(data_config.columns)) is not None:
        return read_mapped(value, columns, data_config, found, _read)
    return _read(value, data_config, found)


def _read(value: Any, data_config: DataConfig, found: ProblemSink) -> LineReading | None:
    reader = _LineReader(data_config, found)
    reader.read(value)
    talk = reader.talk
    turns = [] if talk.is_refused else linked(talk.turns, talk.refuse)
    return None if talk.is_refused else LineReading(turns, talk.unread, talk.num_line_ends)


class _LineReader:
    """Reads the parts of one line in order."""

    def __init__(self, data_config: DataConfig, found: ProblemSink) -> None:
        self.talk = TurnCollector(data_config, found)
        self._reasoning = data_config.reasoning
        self._alternating: tuple[Role, Role] = (
            ("user", "assistant") if data_config.first_speaker == "user" else ("assistant", "user")
        )

    def read(self, value: Any) -> None:
        name = shape_of(value)
        if (other := other_format(value, is_dialogue=name is not None)) is not None:
            self.talk.refuse(other.code, other.path, other.message, other.advice)
        elif name is None:
            self.talk.refuse(
                "unknown-shape", "$", f"the line is not a dialogue but {_described(value)}"
            )
        elif not isinstance(value, list):
            self._object(value, SHAPES[name])
        elif is_array_of_dialogues(value):
            message = f"the line is an array of {counted(len(value), 'dialogue')}"
            self.talk.refuse("array-of-dialogues", "$", message)
        else:
            self._list(value, "$")

    def _object(self, line: dict[str, Any], shape: Shape) -> None:
        is_trained = stated_training(line, "$", self.talk.refuse)
        parts = list(shape.read(line))
        has_one_reply = any(
            isinstance(part, Text) and part.is_reply and isinstance(part.value, str)
            for part in parts
        )
        has_list = any(isinstance(part, TurnList) for part in parts)
        definitions = definitions_of(line, self.talk.refuse) if has_list else []
        of_tools = keys_of_tools(line) if has_list else ()
        known = (*shape.keys, *shape.optional, "system", *of_tools)
        self.talk.note_unread(line, "$", known, is_reply=has_one_reply)
        if not has_one_reply and self._reasoning != "drop" and (keys := reasoning_keys(line)):
            code = "reasoning-place" if self._reasoning else "reasoning"
            message = f"the reasoning under the key {quoted(keys[0])} belongs to no turn"
            self.talk.refuse(code, member("$", keys[0]), message)
        system = line.get("system")
        if system is not None and (not isinstance(system, str) or system.strip()):
            self.talk.add("system", system, "$.system", index=0)
        history = None if "history" in shape.optional else line.get("history")
        if isinstance(history, (list, dict)) and history:
            self.talk.refuse(
                "history", "$.history", "the line has both a list of turns and a history"
            )
        for part in parts:
            if isinstance(part, Text):
                beside = line if part.is_reply else NOTHING
                self.talk.add(part.role, part.value, part.path, beside=beside)
            elif isinstance(part, TurnList):
                self._list(part.value, part.path, needs_speakers=part.needs_speakers)
            else:
                self.talk.refuse(part.code, part.path, part.message)
        if is_trained is False:
            self.talk.exclude()
        self.talk.turns[:0] = definitions

    def _list(self, items: list[Any], path: str, *, needs_speakers: bool = False) -> None:
        if not items:
            self.talk.refuse("empty-dialogue", path, "the list of turns is empty")
        kinds = (type(item) for item in items if isinstance(item, (str, dict)))
        first = dict if needs_speakers else next(kinds, str)
        for index, item in enumerate(items):
            at = f"{path}[{index}]"
            if not isinstance(item, (str, dict)):
                message = f"the turn is {kind_of(item)}, not a string or an object"
                self.talk.refuse("not-a-turn", at, message)
            elif needs_speakers and isinstance(item, str):
                self.talk.refuse("missing-key", at, "the turn is a string without a speaker")
            elif not isinstance(item, first):
                message = f"the turn is {kind_of(item)}, but earlier turns are {_PLURALS[first]}"
                self.talk.refuse("mixed-turns", at, message)
            elif isinstance(item, str):
                self.talk.add(self._alternating[index % 2], item, at, index=index)
            else:
                self._named(item, at, index)

    def _named(self, turn: dict[str, Any], path: str, index: int) -> None:
        speaker_key = next((key for key in SPEAKER_KEYS if key in turn), None)
        text_key = next((key for key in TEXT_KEYS if key in turn), None)
        if speaker_key is None:
            self.talk.refuse("missing-key", path, _missing("speaker", SPEAKER_KEYS, turn))
        tool = None
        if speaker_key is not None and not self.talk.is_plain(turn, speaker_key, text_key):
            roles, refuse = self.talk.roles, self.talk.refuse
            tool = read_tool_turn(turn, speaker_key, text_key, path, roles, refuse)
        if text_key is None and tool is None:
            self.talk.refuse("missing-key", path, _missing("text", TEXT_KEYS, turn))
        # A good turn with two keys has only a speaker and a text.
        is_trained = stated_training(turn, path, self.talk.refuse) if len(turn) > 2 else None
        if speaker_key is None or (text_key is None and tool is None):
            return
        role = tool.role if tool else self.talk.role_of(turn[speaker_key], f"{path}.{speaker_key}")
        if len(turn) > 2:
            read = (speaker_key, text_key, *(tool.keys if tool else ()))
            self.talk.note_unread(turn, path, read, is_reply=role == "assistant")
        if role is not None:
            self.talk.add(
                role,
                tool.text if tool else turn.get(text_key or ""),
                f"{path}.{text_key}" if text_key else path,
                index=index,
                is_trained=is_trained,
                beside=turn if len(turn) > 2 else NOTHING,
                at=path,
                tool_data=tool.data if tool else "",
            )


def _described(value: Any) -> str:
    if not isinstance(value, dict):
        return kind_of(value)
    keys = f"the key{'s' * (len(value) > 1)} {_listed(value)}"
    return f"an object with {keys}" if value else "an empty object"


def _missing(what: str, keys: tuple[str, ...], turn: Mapping[str, Any]) -> str:
    *most, last = map(quoted, keys)
    has = f"only {_listed(turn)}" if turn else "no keys"
    return f"the turn has no {what}: it needs a key {', '.join(most)} or {last}, and has {has}"


def _listed(value: Mapping[str, Any]) -> str:
    shown = ", ".join(quoted(key) for key in list(value)[:_MAX_KEYS_SHOWN])
    return f"{shown}, …" if len(value) > _MAX_KEYS_SHOWN else shown
