"""Every JSON shape of a dialogue that convo reads, turned into the one form that the rest of convo sees.

    ["Hello", "Hi!"]                                       alternating, data.first_speaker first
    [{"role": "user", "content": "Hello"}, …]              also from/value and speaker/text
    {"messages": …} {"turns": …} {"conversations": …}      either kind of list; "system" may stand beside it
    {"prompt": …, "completion": …}                         texts, or lists of turns with roles
    {"instruction": …, "input": …, "output": …}            input is optional

A turn with a role may carry "train": false. Other keys are left unread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from convo_cli.config.schema import DataConfig, SpeakersConfig
from convo_cli.data.dialogue import Dialogue, Role, Turn
from convo_cli.data.problems import Problem, ProblemSink, member, quoted, refuse
from convo_cli.errors import ConfigError

SHAPES: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "conversations": ("conversations",),
    "turns": ("turns",),
    "prompt + completion": ("prompt", "completion"),
    "instruction + output": ("instruction", "output"),
}
"""The keys that an object must have to be read as each shape; where several fit, the first is taken."""

DIALOGUE_KEYS = frozenset({key for keys in SHAPES.values() for key in keys} | {"input", "system"})
SPEAKER_KEYS = ("role", "from", "speaker")
TEXT_KEYS = ("content", "value", "text")
TURN_KEYS = frozenset({*SPEAKER_KEYS, *TEXT_KEYS, "train"})

LocatedTurn = tuple[str, Turn]
"""The path of a turn's text in its line, and the turn."""


def to_dialogue(value: Any, line: int, data_config: DataConfig, found: ProblemSink = refuse) -> Dialogue | None:
    """The dialogue in one decoded line; None once all that is wrong with it went to ``found``."""
    turns = to_turns(value, data_config, found)
    return None if turns is None else Dialogue(tuple(turn for _, turn in turns), line)


def to_turns(value: Any, data_config: DataConfig, found: ProblemSink = refuse) -> list[LocatedTurn] | None:
    """Like `to_dialogue`, with the path of each text."""
    reader = _TurnReader(data_config, found)
    reader.read(value)
    return None if reader.is_refused else reader.turns


def shape_of(value: Any) -> str | None:
    """The name of the shape that a decoded line has, None where convo knows none like it."""
    if isinstance(value, dict):
        return next((name for name, keys in SHAPES.items() if all(key in value for key in keys)), None)
    if isinstance(value, list):
        return "list of turns" if any(isinstance(item, dict) for item in value) else "list of texts"
    return None


def is_array_of_dialogues(value: Any) -> bool:
    """Whether a decoded line is several dialogues instead of one."""
    return (
        isinstance(value, list)
        and bool(value)
        and (_all(value, list) or all(isinstance(item, dict) and shape_of(item) for item in value))
    )


def unread_keys(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the path and name of each key of a good line that has no say in the dialogue."""
    if isinstance(value, list):
        yield from _unread_turn_keys(value, "$")
        return
    shape = shape_of(value)
    if shape is None:
        return
    read = {*SHAPES[shape], "system"} | ({"input"} if shape == "instruction + output" else set())
    for key in value:
        if key not in read:
            yield member("$", key), key
    for key in SHAPES[shape]:
        if isinstance(value[key], list):
            yield from _unread_turn_keys(value[key], member("$", key))


def _unread_turn_keys(turns: list[Any], path: str) -> Iterator[tuple[str, str]]:
    for index, turn in enumerate(turns):
        if isinstance(turn, dict) and not turn.keys() <= TURN_KEYS:
            for key in turn:
                if key not in TURN_KEYS:
                    yield member(f"{path}[{index}]", key), key


@lru_cache(maxsize=16)
def _roles_by_name(speakers: SpeakersConfig) -> dict[str, Role]:
    names: tuple[tuple[Role, tuple[str, ...]], ...] = (
        ("user", speakers.user),
        ("assistant", speakers.assistant),
        ("system", speakers.system),
    )
    roles: dict[str, Role] = {}
    for role, spellings in names:
        for name in spellings:
            if roles.setdefault(name.casefold(), role) != role:
                other = roles[name.casefold()]
                raise ConfigError(
                    f"data.speakers: {quoted(name)} is both {other} and {role}",
                    hint=f"remove it from data.speakers.{other} or data.speakers.{role}",
                )
    return roles


class _TurnReader:
    """Collects the turns of one line."""

    def __init__(self, data_config: DataConfig, found: ProblemSink) -> None:
        self.turns: list[LocatedTurn] = []
        self.is_refused = False
        self._found = found
        self._speakers = data_config.speakers
        self._roles = _roles_by_name(data_config.speakers)
        self._alternating: tuple[Role, Role] = (
            ("user", "assistant") if data_config.first_speaker == "user" else ("assistant", "user")
        )

    def read(self, value: Any) -> None:
        shape = shape_of(value)
        if isinstance(value, list):
            if is_array_of_dialogues(value):
                self._refuse("array-of-dialogues", "$", f"one array of {len(value)} dialogues")
            else:
                self._list(value, "$")
        elif shape is None:
            self._refuse("unknown-shape", "$", _strange(value))
        else:
            self._object(value, shape)

    def _object(self, value: dict[str, Any], shape: str) -> None:
        system = value.get("system")
        if system is not None and (not isinstance(system, str) or system.strip()):
            self._add("system", system, "$.system", index=0)
        if shape == "instruction + output":
            self._add("user", self._instruction(value), "$.instruction")
            self._add("assistant", value["output"], "$.output")
        elif shape == "prompt + completion":
            self._text_or_turns("user", value["prompt"], "$.prompt")
            self._text_or_turns("assistant", value["completion"], "$.completion")
        elif isinstance(turns := value[shape], list):
            self._list(turns, member("$", shape))
        else:
            self._refuse("unknown-shape", member("$", shape), f"{shape} is {_kind(turns)}, not a list of turns")

    def _instruction(self, value: dict[str, Any]) -> Any:
        instruction, extra = value["instruction"], value.get("input")
        if extra is None or not isinstance(instruction, str):
            return instruction
        if not isinstance(extra, str):
            self._refuse("text-not-string", "$.input", f"the input is {_kind(extra)}")
            return instruction
        return "\n\n".join(part for part in (instruction.strip(), extra.strip()) if part)

    def _text_or_turns(self, role: Role, value: Any, path: str) -> None:
        if isinstance(value, list):
            self._list(value, path, is_named=True)
        else:
            self._add(role, value, path)

    def _list(self, items: list[Any], path: str, *, is_named: bool = False) -> None:
        """Read a list of turns; ``is_named``: a list of plain texts is refused, nobody says who speaks."""
        if not items:
            self._refuse("empty-dialogue", path, "there is no turn in the list")
        first = dict if is_named else next((type(item) for item in items if isinstance(item, (str, dict))), str)
        for index, item in enumerate(items):
            at = f"{path}[{index}]"
            if not isinstance(item, (str, dict)):
                self._refuse("not-a-turn", at, f"the turn is {_kind(item)}")
            elif not isinstance(item, first):
                self._refuse("mixed-turns", at, f"the turn is {_kind(item)} among turns of another kind")
            elif isinstance(item, str):
                self._add(self._alternating[index % 2], item, at, index=index)
            else:
                self._named(item, at, index)

    def _named(self, turn: dict[str, Any], path: str, index: int) -> None:
        speaker_key = next((key for key in SPEAKER_KEYS if key in turn), None)
        text_key = next((key for key in TEXT_KEYS if key in turn), None)
        for key, what, known in ((speaker_key, "speaker", SPEAKER_KEYS), (text_key, "text", TEXT_KEYS)):
            if key is None:
                keys = ", ".join(quoted(key) for key in list(turn)[:8]) or "no keys"
                self._refuse("missing-key", path, f"the turn has no {what} ({', '.join(known)}); it has {keys}")
        is_trained = turn.get("train", True)
        if not isinstance(is_trained, bool):
            self._refuse("train-not-boolean", f"{path}.train", f'"train" is {_kind(is_trained)}')
        if speaker_key is None or text_key is None:
            return
        role = self._role(turn[speaker_key], f"{path}.{speaker_key}")
        if role is not None:
            self._add(role, turn[text_key], f"{path}.{text_key}", index=index, is_trained=is_trained is True)

    def _role(self, name: Any, path: str) -> Role | None:
        if not isinstance(name, str):
            self._refuse("unknown-speaker", path, f"the speaker is {_kind(name)}, not a name")
            return None
        role = self._roles.get(name.casefold())
        if role is None:
            users = ", ".join([*self._speakers.user, quoted(name)])
            message = f"the speaker {quoted(name)} has no role; a person is named in data.speakers.user: [{users}]"
            self._refuse("unknown-speaker", path, message)
        return role

    def _add(self, role: Role, text: Any, path: str, *, index: int = -1, is_trained: bool = True) -> None:
        if not isinstance(text, str):
            self._refuse("text-not-string", path, f"the text is {_kind(text)}")
            return
        text = text.strip()
        if not text:
            self._refuse("empty-utterance", path, "the text is empty")
        elif role == "system" and (index > 0 or self.turns):
            self._refuse("system-not-first", path, "a system turn after another turn")
        else:
            self.turns.append((path, Turn(role, text, is_trained)))

    def _refuse(self, code: str, path: str, message: str) -> None:
        self.is_refused = True
        self._found(Problem(code, message, path))


def _all(items: list[Any], kind: type) -> bool:
    return all(isinstance(item, kind) for item in items)


def _kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "a list of parts" if value and _all(value, dict) else "a list"
    if isinstance(value, (str, dict)):
        return "a text" if isinstance(value, str) else "an object"
    return "a number"


def _strange(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{_kind(value)} is no dialogue"
    keys = ", ".join(quoted(key) for key in list(value)[:8])
    return f"an object with the keys {keys} is no dialogue" if keys else "an empty object is no dialogue"
