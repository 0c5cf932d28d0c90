"""Reader of one decoded line: its turns, and the keys that are not read.

A line is an object of one of the `SHAPES`, or a list: ``["Hello", "Hi!"]`` alternates between the
speakers, data.first_speaker first; ``[["Hello", "Hi!"], …]`` holds pairs of [user, assistant];
``[{"role": "user", "content": "Hello"}, …]`` names the speakers (see `items.entries`). An object
may have its system turn in a key of its own. A dialogue that is an object, and a turn that is one,
may state whether they are trained on (see `masks`). An assistant turn may have reasoning beside its
text (see `reasoning`), and other good replies (see `items.other_replies`). A list, or the whole
line, may be JSON inside a string.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from convo_cli.data.conversions.lines import other_format
from convo_cli.data.problems import ProblemSink, kind_of, member, refuse
from convo_cli.data.shapes.collector import NOTHING, LocatedTurn, TurnCollector
from convo_cli.data.shapes.items.turn_keys import TEXT_KEYS
from convo_cli.data.shapes.items.turn_lists import ListReader, listed_keys
from convo_cli.data.shapes.known_keys import SESSION_KEY
from convo_cli.data.shapes.mapped.mapping import line_columns, read_mapped
from convo_cli.data.shapes.masks import stated_training
from convo_cli.data.shapes.parallel_speakers import speaker_problem, speakers_beside
from convo_cli.data.shapes.parts import Part, Text, TurnList
from convo_cli.data.shapes.reasoning import reasoning_keys
from convo_cli.data.shapes.speakers import named_in
from convo_cli.data.shapes.table import (
    SHAPES,
    SYSTEM_KEYS,
    Shape,
    holds_dialogue,
    is_array_of_dialogues,
    shape_of,
)
from convo_cli.data.shapes.tools.tool_calls import (
    definitions_of,
    keys_of_tools,
)
from convo_cli.data.shapes.tools.tool_links import linked
from convo_cli.data.shapes.unread import UnreadItem
from convo_cli.data.strict_json.embedded import embedded_json
from convo_cli.wording import counted, quoted

if TYPE_CHECKING:
    from convo_cli.config.schema import DataConfig


class LineReading(NamedTuple):
    """The content of one line: the turns, and the keys that are not read."""

    turns: list[LocatedTurn]
    unread: list[UnreadItem]
    num_line_ends: int = 0
    """Texts with carriage returns, which became newlines."""
    shape: str = ""
    """Its name in reports."""
    num_stripped: int = 0
    """Texts with white space at an end, which is removed."""


def read_value(
    value: Any, data_config: DataConfig, found: ProblemSink = refuse
) -> LineReading | None:
    """Read one decoded line; None if it has an error. Problems go to ``found``."""
    if (columns := line_columns(data_config)) is not None:
        return read_mapped(value, columns, data_config, found, _read)
    return _read(value, data_config, found)


def _read(value: Any, data_config: DataConfig, found: ProblemSink) -> LineReading | None:
    talk = TurnCollector(data_config, found)
    if isinstance(value, str):
        text, value = value, embedded_json(value, "[{", "$", talk.report)
        talk.text_path = "" if value is text else "$"
    if talk.is_refused:
        return None
    shape = shape_of(value)
    if (other := other_format(value, is_dialogue=holds_dialogue(value, shape))) is not None:
        talk.refuse(other.code, other.path, other.message, other.advice)
    elif shape is not None:
        _LineReader(data_config, talk).read(value, shape)
    else:
        message = f"the line is not a dialogue but {_described(value)}"
        talk.refuse("unknown-shape", "$", message)
    turns = [] if talk.is_refused else linked(talk.turns, talk.refuse)
    if talk.is_refused:
        return None
    return LineReading(
        turns, talk.unread, talk.num_line_ends, shape or "", num_stripped=talk.num_stripped
    )


class _LineReader:
    """Reads the parts of one line in order."""

    def __init__(self, data_config: DataConfig, talk: TurnCollector) -> None:
        self._talk = talk
        self._lists = ListReader(talk, data_config.first_speaker)
        self._first_speaker = data_config.first_speaker
        self._reasoning = data_config.reasoning

    def read(self, value: Any, shape: str) -> None:
        if isinstance(value, dict):
            self._object(value, SHAPES[shape])
        elif is_array_of_dialogues(value):
            message = f"the line is an array of {counted(len(value), 'dialogue')}"
            self._talk.refuse("array-of-dialogues", "$", message)
        else:
            self._lists.read(TurnList(value, "$"))

    def _object(self, line: dict[str, Any], shape: Shape) -> None:
        talk = self._talk
        is_trained = stated_training(line, "$", talk.refuse)
        parts = list(shape.read(line))
        has_one_reply = any(
            isinstance(part, Text) and part.is_reply and isinstance(part.value, (str, list))
            for part in parts
        )
        talk.names = named_in(line)
        has_list = any(isinstance(part, TurnList) for part in parts)
        definitions = definitions_of(line, talk.refuse) if has_list else []
        of_tools = keys_of_tools(line) if has_list else ()
        if (speakers := speakers_beside(line, parts)) is not None:
            self._check_speakers(line[speakers], parts[0], speakers)
        beside = () if speakers is None else (speakers,)
        known = (*shape.keys, *shape.optional, *SYSTEM_KEYS, *of_tools, *beside, SESSION_KEY)
        talk.note_unread(line, "$", known, "assistant" if has_one_reply else None)
        if not has_one_reply and self._reasoning != "drop" and (keys := reasoning_keys(line)):
            code = "reasoning-place" if self._reasoning else "reasoning"
            message = f"the reasoning under the key {quoted(keys[0])} belongs to no turn"
            talk.refuse(code, member("$", keys[0]), message)
        for key in SYSTEM_KEYS:
            self._system(line.get(key), f"$.{key}")
        history = None if "history" in shape.optional else line.get("history")
        if isinstance(history, (list, dict)) and history:
            talk.refuse("history", "$.history", "the line has both a list of turns and a history")
        for part in parts:
            self._part(part, line)
        if used := {member("$", key) for key in talk.used_names}:
            talk.unread = [item for item in talk.unread if item.path not in used]
        if is_trained is False:
            talk.exclude()
        talk.turns[:0] = definitions

    def _check_speakers(self, names: list[str], part: Part, key: str) -> None:
        """Refuse names under ``key`` that do not alternate as the texts of the part do."""
        if isinstance(part, TurnList):
            problem = speaker_problem(names, part, key, self._talk.roles, self._first_speaker)
            if problem is not None:
                self._talk.report(problem)

    def _part(self, part: Part, line: Mapping[str, Any]) -> None:
        if isinstance(part, Text):
            beside = line if part.is_reply else NOTHING
            self._talk.add(part.role, part.value, part.path, beside=beside)
        elif isinstance(part, TurnList):
            before = self._talk.text_path
            self._talk.text_path = before or part.text_path
            self._lists.read(part)
            self._talk.text_path = before
        else:
            self._talk.report(part)

    def _system(self, system: Any, path: str) -> None:
        """Add the system text of a line: a string, its parts, or an object such as Gemini's."""
        if isinstance(system, dict):
            key = next((key for key in TEXT_KEYS if key in system), None)
            if key is not None:
                self._talk.note_unread(system, path, ("role", key))
                value = system[key]
                self._system([value] if isinstance(value, dict) else value, f"{path}.{key}")
                return
        if system is not None and (not isinstance(system, str) or system.strip()):
            self._talk.add("system", system, path, index=0)


def _described(value: Any) -> str:
    if not isinstance(value, dict):
        return kind_of(value)
    keys = f"the key{'s' * (len(value) > 1)} {listed_keys(value)}"
    return f"an object with {keys}" if value else "an empty object"
