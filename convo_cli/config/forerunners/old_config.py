"""A config of a forerunner during its conversion: each of its keys gets an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from convo_cli.config.places import KeyPath, Place, Problem, Source, clipped, dotted
from convo_cli.config.synonyms import SYNONYMS

Status = Literal["mapped", "not needed", "unsupported", "ambiguous"]

_INDEX = re.compile(r"[0-9]{1,5}")
"""A list index in a dotted key."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result for one key of an old config."""

    place: Place
    key: str
    """Dotted name in the old config."""
    value: str
    """The old value as written, on one line and shortened."""
    status: Status
    becomes: tuple[str, ...] = ()
    """Keys of convo that this key sets."""
    note: str = ""

    @property
    def name(self) -> str:
        """Return the key with its value."""
        key = clipped(self.key)
        return f"{key}: {self.value}" if self.value else key


class OldConfig:
    """The keys of an old config, the values of convo that they set, and the answers."""

    def __init__(
        self, source: Source, given: Mapping[str, Any], *, null_texts: Sequence[str] = ()
    ) -> None:
        self._source = source
        self._given = given
        """Values of convo from the command line, by dotted key; they override the old ones."""
        self._null_texts = null_texts
        """Texts that mean null."""
        self._answers: dict[KeyPath, Answer] = {}
        self.new_values: dict[str, Any] = {}
        """Values of convo by dotted key."""

    def path(self, key: str) -> KeyPath:
        """Return the path of a dotted key; a number is an index of a list."""
        return tuple(int(part) if _INDEX.fullmatch(part) else part for part in key.split("."))

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default if the key is missing."""
        value = self._source.value
        for part in self.path(key):
            is_item = isinstance(value, list) and isinstance(part, int) and part < len(value)
            if not is_item and not (isinstance(value, dict) and part in value):
                return default
            value = value[part]
        return None if isinstance(value, str) and value in self._null_texts else value

    def has(self, key: str) -> bool:
        """Return whether the key or list item is written, perhaps as null."""
        path = self.path(key)
        return path in self._source.keys or path in self._source.values

    def require_section(self, key: str) -> None:
        """Answer a section that has no keys; its settings have their defaults."""
        value = self.get(key)
        if value in (None, {}):
            self.not_needed(key, "it has no keys")
        elif not isinstance(value, dict):
            self.wrong(key, "keys with values")

    def whole(self, key: str, default: int, *, at_least: int = 0) -> int:
        """Return a whole number; for another value, record an answer and return the default."""
        value = self.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and value >= at_least:
            return value
        if isinstance(value, float) and value.is_integer() and value >= at_least:
            return int(value)
        self.wrong(key, f"a whole number, at least {at_least}")
        return default

    def shown(self, key: str) -> str:
        """Return a value as written, on one line and shortened."""
        return self._shown(self.path(key))

    def wrong(self, key: str, allowed: str) -> None:
        """Record a value that the other program does not accept either."""
        self.ambiguous(key, f"found {self.shown(key)}; allowed: {allowed}")

    def map(self, key: str, values: Mapping[str, Any], note: str = "") -> None:
        """Set keys of convo from an old key, and answer that key if it is written."""
        named = dict(values)
        for name in self._given.keys() & named.keys():
            named[name] = self._given[name]
            note = f"the command line sets {name}"
        self.new_values |= named
        self._answer(key, "mapped", tuple(named), note)

    def not_needed(self, key: str, note: str) -> None:
        self._answer(key, "not needed", (), note)

    def unsupported(self, key: str, note: str, becomes: tuple[str, ...] = ()) -> None:
        self._answer(key, "unsupported", becomes, note)

    def ambiguous(self, key: str, note: str, *, place: Place | None = None) -> None:
        """Record that the user has to decide; the first such answer of a key stands."""
        path = self.path(key)
        if path not in self._answers or self._answers[path].status != "ambiguous":
            where = place or self._source.place_of_value(path)
            self._answers[path] = Answer(where, key, self._shown(path), "ambiguous", (), note)

    def is_given(self, new_key: str) -> bool:
        """Return whether the command line sets a key of convo."""
        return new_key in self._given

    def note_filled(self, problem: Problem) -> None:
        """Add to the answer of a key that an earlier line sets it to null."""
        self._answer_rest()
        note = f"{problem.message} as null"
        before = self._answers.get(problem.path)
        if before is None:
            shown, key = self._shown(problem.path), dotted(problem.path)
            before = Answer(problem.place, key, shown, "not needed", (), "its parts are answered")
        note = f"{before.note}; {note}" if before.note else note
        self._answers[problem.path] = replace(before, note=note)

    def has_old_key(self, new_key: str) -> bool:
        """Return whether an old key sets a key of convo."""
        return any(new_key in answer.becomes for answer in self._answers.values())

    def require(self, *keys: str) -> None:
        """Answer each key that is missing or empty."""
        for key in keys:
            if self.get(key) in (None, ""):
                self.ambiguous(key, "empty, but needed" if self.has(key) else "missing")

    def answers(self) -> list[Answer]:
        """Return the answers of all keys in the order of the file."""
        self._answer_rest()
        return sorted(
            self._answers.values(), key=lambda answer: (answer.place.line, answer.place.column)
        )

    def refuse(self, problem: Problem) -> None:
        """Record a problem of the text, such as an alias, which leaves the value undecided."""
        key = dotted(problem.path)
        self._answers.setdefault(
            problem.path, Answer(problem.place, key, "", "ambiguous", (), problem.message)
        )

    def refuse_new(self, new_key: str, message: str) -> None:
        """Answer the old key from which a refused value of convo comes."""
        answers = list(reversed(self._answers.values()))
        for answer in answers:
            if any(f"{new_key}.".startswith(f"{key}.") for key in answer.becomes):
                self.ambiguous(answer.key, message)
                return
        for answer in answers:  # a problem of several keys names them
            if any(key in message for key in answer.becomes):
                self.ambiguous(answer.key, message)
                return
        if not any(answer.status == "ambiguous" for answer in answers):
            self.ambiguous(new_key, message)

    def _answer(self, key: str, status: Status, becomes: tuple[str, ...], note: str) -> None:
        path = self.path(key)
        if not self.has(key):
            return
        before = self._answers.get(path)
        if before is None or before.status not in ("ambiguous", "unsupported"):
            place = self._place(path)
            self._answers[path] = Answer(place, key, self._shown(path), status, becomes, note)

    def _place(self, path: KeyPath) -> Place:
        """Return the place of a key, or of an item of a list."""
        return self._source.keys.get(path) or self._source.place_of_value(path)

    def _shown(self, path: KeyPath) -> str:
        value = self.get(dotted(path))
        return _on_one_line(value, self._source.values.get(path)) if self.has(dotted(path)) else ""

    def _answer_rest(self) -> None:
        """Answer the keys that the conversion does not know."""
        for path, value in self._leaves(self._source.value, ()):
            if path not in self._answers:
                self._answers[path] = self._answer_of_unknown(path, value)

    def _answer_of_unknown(self, path: KeyPath, value: Any) -> Answer:
        """Return the answer of a key that the conversion does not know, or of a part of one."""
        shown = _on_one_line(value, self._source.values.get(path))
        status: Status = "unsupported"
        note, known = "not known", SYNONYMS.get(str(path[-1]))
        above = (self._answers.get(path[:length]) for length in range(len(path) - 1, 0, -1))
        if answered := next(filter(None, above), None):
            status = "not needed" if answered.status == "not needed" else status
            note = f"part of {clipped(answered.key)}"
        elif known:
            note = f"not known; convo has {known}"
        return Answer(self._place(path), dotted(path), shown, status, (), note)

    def _leaves(self, value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
        """Yield every value that is not a section; a list of plain values is one."""
        inside: list[tuple[str | int, Any]] = []
        if isinstance(value, dict):
            inside = list(value.items())
        elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
            inside = list(enumerate(value))
        if not inside:
            yield path, value
        for name, inner in inside:
            yield from self._leaves(inner, (*path, name))


def _on_one_line(value: Any, place: Place | None) -> str:
    if place is not None and place.text is not None:
        return clipped(place.text)
    return clipped(json.dumps(value, ensure_ascii=False))
