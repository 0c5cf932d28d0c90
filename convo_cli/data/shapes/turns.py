"""Reader of one decoded line: its turns, and the keys that are not read.

A line is an object of one of the `SHAPES`, or a list: ``["Hello", "Hi!"]`` alternates,
data.first_speaker first; ``[{"role": "user", "content": "Hello"}, …]`` (also from/value and
speaker/text) names the speakers. An object may have its system turn in a key of its own. A turn
with a role, or a dialogue that is an object, may state whether it is trained on (see `masks`). An
assistant turn may have reasoning beside its text (see `reasoning`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from convo_cli.data.dialogue import Role, Turn
from convo_cli.data.problems import Problem, ProblemSink, kind_of, member, quoted, refuse
from convo_cli.data.shapes.known_keys import (
    SPEAKER_KEYS,
    TEXT_KEYS,
    TRAIN_KEYS,
    is_reasoning_key,
    says_training,
)
from convo_cli.data.shapes.masks import stated_training
from convo_cli.data.shapes.reasoning import reasoning_keys, with_reasoning
from convo_cli.data.shapes.speakers import roles_by_name
from convo_cli.data.shapes.table import SHAPES, Shape, Text, TurnList
from convo_cli.data.shapes.unread import UnreadItem

if TYPE_CHECKING:
    from convo_cli.config.schema import DataConfig

_NOTHING: Mapping[str, Any] = {}

LocatedTurn = tuple[str, Turn]
"""The path of a text in its line, and the turn."""


class LineReading(NamedTuple):
    """The content of one line: the turns, and the keys that are not read."""

    turns: list[LocatedTurn]
    unread: list[UnreadItem]


def read_value(
    value: Any, data_config: DataConfig, found: ProblemSink = refuse
) -> LineReading | None:
    """Read one decoded line; None if it has an error. Problems go to ``found``."""
    reader = _TurnReader(data_config, found)
    reader.read(value)
    return None if reader.is_refused else LineReading(reader.turns, reader.unread)


def shape_of(value: Any) -> str | None:
    """Return the name of the shape of a decoded line; None for an unknown shape."""
    if isinstance(value, dict):
        return next(
            (name for name, shape in SHAPES.items() if all(key in value for key in shape.keys)),
            None,
        )
    if isinstance(value, list):
        return "list of turns" if any(isinstance(item, dict) for item in value) else "list of texts"
    return None


def is_array_of_dialogues(value: Any) -> bool:
    """Return whether a decoded line holds several dialogues instead of one."""
    return (
        isinstance(value, list)
        and bool(value)
        and (_all(value, list) or all(isinstance(item, dict) and shape_of(item) for item in value))
    )


class _TurnReader:
    """Collects the turns of one line."""

    def __init__(self, data_config: DataConfig, found: ProblemSink) -> None:
        self.turns: list[LocatedTurn] = []
        self.unread: list[UnreadItem] = []
        self.is_refused = False
        self._says_trained = ""  # path of the first turn that says it is trained on
        self._found = found
        self._reasoning = data_config.reasoning
        self._speakers = data_config.speakers
        self._roles = roles_by_name(data_config.speakers)
        self._alternating: tuple[Role, Role] = (
            ("user", "assistant") if data_config.first_speaker == "user" else ("assistant", "user")
        )

    def read(self, value: Any) -> None:
        name = shape_of(value)
        if name is None:
            self._refuse("unknown-shape", "$", _unknown(value))
        elif not isinstance(value, list):
            self._object(value, SHAPES[name])
        elif is_array_of_dialogues(value):
            self._refuse("array-of-dialogues", "$", f"one array of {len(value)} dialogues")
        else:
            self._list(value, "$")

    def _object(self, line: dict[str, Any], shape: Shape) -> None:
        is_trained = stated_training(line, "$", self._refuse)
        parts = list(shape.read(line))
        has_one_reply = any(
            isinstance(part, Text) and part.is_reply and isinstance(part.value, str)
            for part in parts
        )
        self._note_unread(
            line, "$", (*shape.keys, *shape.optional, "system"), is_reply=has_one_reply
        )
        if not has_one_reply and self._reasoning != "drop" and (keys := reasoning_keys(line)):
            message = f"the key {quoted(keys[0])} is reasoning beside a list of turns"
            self._refuse(
                "reasoning-place" if self._reasoning else "reasoning", member("$", keys[0]), message
            )
        system = line.get("system")
        if system is not None and (not isinstance(system, str) or system.strip()):
            self._add("system", system, "$.system", index=0)
        if (
            "history" not in shape.optional
            and isinstance(history := line.get("history"), (list, dict))
            and history
        ):
            self._refuse(
                "history", "$.history", "the dialogue has a list of turns and a history beside it"
            )
        for part in parts:
            if isinstance(part, Text):
                self._add(
                    part.role, part.value, part.path, beside=line if part.is_reply else _NOTHING
                )
            elif isinstance(part, TurnList):
                self._list(part.value, part.path, needs_speakers=part.needs_speakers)
            else:
                self._refuse(part.code, part.path, part.message)
        if is_trained is False:
            if self._says_trained:
                message = (
                    "the turn says that it is trained on, but the dialogue says that it is not"
                )
                self._refuse("train-conflict", self._says_trained, message)
            self.turns = [(path, replace(turn, is_trained=False)) for path, turn in self.turns]

    def _note_unread(
        self, value: dict[str, Any], path: str, read: Collection[str | None], *, is_reply: bool
    ) -> None:
        for key, item in value.items():
            if key in read or key in TRAIN_KEYS or says_training(key):
                continue
            if not (is_reply and is_reasoning_key(key)):
                self.unread.append(UnreadItem(member(path, key), key, item))

    def _list(self, items: list[Any], path: str, *, needs_speakers: bool = False) -> None:
        if not items:
            self._refuse("empty-dialogue", path, "there is no turn in the list")
        first = (
            dict
            if needs_speakers
            else next((type(item) for item in items if isinstance(item, (str, dict))), str)
        )
        for index, item in enumerate(items):
            at = f"{path}[{index}]"
            if not isinstance(item, (str, dict)):
                self._refuse("not-a-turn", at, f"the turn is {kind_of(item)}")
            elif not isinstance(item, first):
                self._refuse(
                    "mixed-turns", at, f"the turn is {kind_of(item)} among turns of another kind"
                )
            elif isinstance(item, str):
                self._add(self._alternating[index % 2], item, at, index=index)
            else:
                self._named(item, at, index)

    def _named(self, turn: dict[str, Any], path: str, index: int) -> None:
        speaker_key = next((key for key in SPEAKER_KEYS if key in turn), None)
        text_key = next((key for key in TEXT_KEYS if key in turn), None)
        for key, what, known in (
            (speaker_key, "speaker", SPEAKER_KEYS),
            (text_key, "text", TEXT_KEYS),
        ):
            if key is None:
                keys = ", ".join(quoted(key) for key in list(turn)[:8]) or "no keys"
                self._refuse(
                    "missing-key",
                    path,
                    f"the turn has no {what} ({', '.join(known)}); it has {keys}",
                )
        # A good turn with two keys has only a speaker and a text.
        is_trained = stated_training(turn, path, self._refuse) if len(turn) > 2 else None
        if speaker_key is None or text_key is None:
            return
        role = self._role(turn[speaker_key], f"{path}.{speaker_key}")
        if len(turn) > 2:
            self._note_unread(turn, path, (speaker_key, text_key), is_reply=role == "assistant")
        if role is not None:
            if is_trained:
                self._says_trained = self._says_trained or path
            beside = turn if len(turn) > 2 else {}
            self._add(
                role,
                turn[text_key],
                f"{path}.{text_key}",
                index=index,
                is_trained=is_trained,
                beside=beside,
                at=path,
            )

    def _role(self, name: Any, path: str) -> Role | None:
        if not isinstance(name, str):
            self._refuse("unknown-speaker", path, f"the speaker is {kind_of(name)}, not a name")
            return None
        role = self._roles.get(name.casefold())
        if role is None:
            users = ", ".join([*self._speakers.user, quoted(name)])
            message = (
                f"the speaker {quoted(name)} has no role; a person is named in "
                f"data.speakers.user: [{users}]"
            )
            self._refuse("unknown-speaker", path, message)
        return role

    def _add(
        self,
        role: Role,
        text: Any,
        path: str,
        *,
        index: int = -1,
        is_trained: bool | None = None,
        beside: Mapping[str, Any] = _NOTHING,
        at: str = "$",
    ) -> None:
        """Add a turn; ``beside`` is the object at path ``at`` that may hold its reasoning."""
        if not isinstance(text, str):
            self._refuse("text-not-string", path, f"the text is {kind_of(text)}")
            return
        has_reasoning = False
        if role == "assistant" and (beside or "<" in text):
            text, has_reasoning = with_reasoning(
                text, path, beside, at, self._reasoning, self._refuse
            )
        text = text.strip()
        if not text:
            self._refuse(
                "empty-utterance",
                path,
                "the text is empty" + " without its reasoning" * has_reasoning,
            )
        elif role == "system" and (index > 0 or self.turns):
            self._refuse("system-not-first", path, "a system turn after another turn")
        else:
            self.turns.append((path, Turn(role, text, is_trained is not False, has_reasoning)))

    def _refuse(self, code: str, path: str, message: str) -> None:
        self.is_refused = True
        self._found(Problem(code, message, path))


def _all(items: list[Any], kind: type) -> bool:
    return all(isinstance(item, kind) for item in items)


def _unknown(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{kind_of(value)} is no dialogue"
    keys = ", ".join(quoted(key) for key in list(value)[:8])
    return (
        f"an object with the keys {keys} is no dialogue"
        if keys
        else "an empty object is no dialogue"
    )
