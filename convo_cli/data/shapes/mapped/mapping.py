"""Lines whose shape `data.columns` states: they are rewritten to a shape of the table, and read.

    turns [+ speaker, text]      {"messages": [{"role": …, "content": …}, …]}
    turns + user, assistant      the same, with two turns for each item of the list
    user, assistant [+ history]  {"context": …, "response": …, "history": …}
    only speaker, text, system   the shape that the line has without them

Every other key stays where it means the same: a mask, reasoning or a name beside a text. What the
reader reports has the path in the line itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convo_cli.config.column_paths import PathSteps
from convo_cli.data.problems import Problem, ProblemSink, kind_of, member
from convo_cli.data.shapes.items.turn_keys import SPEAKER_KEYS, TEXT_KEYS, keys_of_turn
from convo_cli.data.shapes.known_keys import DIALOGUE_KEYS, TRAIN_KEYS
from convo_cli.data.shapes.mapped.steps import (
    NO_COLUMNS,
    Columns,
    beside,
    columns_of,
    path_of,
    value_at,
)
from convo_cli.data.shapes.speakers import roles_by_name
from convo_cli.data.shapes.table import SHAPES, SYSTEM_KEYS, shape_of
from convo_cli.data.shapes.tools.tool_calls import kind_of_speaker
from convo_cli.data.shapes.unread import UnreadItem

if TYPE_CHECKING:
    from convo_cli.config.schema import DataConfig
    from convo_cli.data.dialogue import Role
    from convo_cli.data.shapes.turns import LineReading

MAPPED = "data.columns"
"""Name of the shape of a mapped line in reports."""
_MISSING = object()


Read = Callable[[Any, "DataConfig", ProblemSink], "LineReading | None"]


def line_columns(config: DataConfig) -> Columns | None:
    """Return the columns by which lines are rewritten; None if they are read as they are."""
    columns = columns_of(config.columns)
    if columns is None and config.speakers.keep_names:
        return NO_COLUMNS
    return columns


def read_mapped(
    value: Any, columns: Columns, config: DataConfig, found: ProblemSink, read: Read
) -> LineReading | None:
    """Read a decoded line by its columns; None if it has an error. Problems go to ``found``."""
    line = _Line(columns, config, found)
    rewritten = line.rewritten(value)
    if line.is_refused:
        return None

    def found_there(problem: Problem) -> None:
        found(replace(problem, path=line.original(problem.path)))

    reading = read(rewritten, config, found_there)
    if reading is None:
        return None
    turns = [(line.original(path), turn) for path, turn in reading.turns]
    unread = [item._replace(path=line.original(item.path)) for item in reading.unread]
    is_mapped = columns.turns is not None or columns.user is not None
    shape = MAPPED if is_mapped else reading.shape
    return reading._replace(turns=turns, unread=unread + line.unread, shape=shape)


class _Line:
    """One line: rewrites it, and remembers the original path of everything that moves."""

    def __init__(self, columns: Columns, config: DataConfig, found: ProblemSink) -> None:
        self.is_refused = False
        self.unread: list[UnreadItem] = []
        """Items that have no place in the rewritten line, with their original paths."""
        self._columns = columns
        self._speakers = config.speakers
        self._roles = roles_by_name(config.speakers)
        self._found = found
        self._paths: dict[str, str] = {}

    def original(self, path: str) -> str:
        """Return the path in the line of a path in the rewritten line."""
        at = len(path)
        while at > 0:
            if (known := self._paths.get(path[:at])) is not None:
                return known + path[at:]
            at = max(path.rfind(".", 0, at), path.rfind("[", 0, at))
        return path

    def rewritten(self, value: Any) -> Any:
        """Return the line in a shape of the table."""
        columns = self._columns
        whole = {name: steps for name in ("system", "history") if (steps := getattr(columns, name))}
        line = {
            name: self._moved(value, steps, "$", f"$.{name}", name) for name, steps in whole.items()
        }
        if columns.turns is not None:
            line["messages"] = self._list(value, columns.turns)
            reserved = DIALOGUE_KEYS - {*SYSTEM_KEYS}
            self._keep_beside(value, "$", [columns.turns, *whole.values()], line, "$", reserved)
        elif columns.user is not None and columns.assistant is not None:
            line["context"] = self._moved(value, columns.user, "$", "$.context", "user")
            line["response"] = self._moved(value, columns.assistant, "$", "$.response", "assistant")
            reserved = DIALOGUE_KEYS - {*SYSTEM_KEYS, "history"}
            read = [columns.user, columns.assistant, *whole.values()]
            self._keep_beside(value, "$", read, line, "$", reserved)
        else:
            return self._in_its_shape(value, line, list(whole.values()))
        return line

    def _in_its_shape(self, value: Any, line: dict[str, Any], read: list[PathSteps]) -> Any:
        """Return a line whose shape the table knows, with the mapped parts of it and its turns."""
        shape = shape_of(value)
        if isinstance(value, list):
            return self._turns(value, "$", "$") if shape == "list of turns" else value
        if shape is None:
            return value
        self._keep_beside(value, "$", read, line, "$", frozenset())
        for key in SHAPES[shape].keys:
            if isinstance(turns := line.get(key), list):
                line[key] = self._turns(turns, f"$.{key}", f"$.{key}")
        return line

    def _list(self, value: Any, steps: PathSteps) -> list[Any]:
        turns = self._moved(value, steps, "$", "$.messages", "turns")
        if isinstance(turns, list):
            return self._turns(turns, self.original("$.messages"), "$.messages")
        if turns is not _MISSING:
            message = f"data.columns.turns: the value is {kind_of(turns)}, not a list of turns"
            self._refuse("unknown-shape", self.original("$.messages"), message)
        return []

    def _turns(self, turns: list[Any], path: str, to: str) -> list[Any]:
        rewritten: list[Any] = []
        for index, turn in enumerate(turns):
            at = f"{path}[{index}]"
            if self._columns.user is not None and self._columns.assistant is not None:
                rewritten += self._pair(turn, at, to, len(rewritten))
            elif self._columns.speaker is not None or self._columns.text is not None:
                rewritten.append(self._named(self._turn(turn, at, f"{to}[{index}]")))
            elif isinstance(turn, dict):
                rewritten.append(self._named(turn))
            else:
                rewritten.append(turn)
        return rewritten

    def _turn(self, turn: Any, path: str, to: str) -> dict[str, Any]:
        columns = self._columns
        self._paths[to] = path
        rewritten: dict[str, Any] = {}
        reserved: set[str] = set()
        for name, key, keys in (("speaker", "role", SPEAKER_KEYS), ("text", "content", TEXT_KEYS)):
            if (steps := getattr(columns, name)) is not None:
                rewritten[key] = self._moved(turn, steps, path, f"{to}.{key}", name)
                reserved.update(keys)
        read = [steps for steps in (columns.speaker, columns.text) if steps is not None]
        self._keep_beside(turn, path, read, rewritten, to, frozenset(reserved))
        return rewritten

    def _named(self, turn: dict[str, Any]) -> dict[str, Any]:
        """Return a turn whose text begins with the name of a speaker without a role."""
        speaker, text = keys_of_turn(tuple(turn))
        if not self._speakers.keep_names or speaker is None or text is None:
            return turn
        name, said = turn[speaker], turn[text]
        is_name = isinstance(name, (str, int)) and not isinstance(name, bool)
        is_known = is_name and str(name).casefold() in self._roles
        if not is_name or is_known or kind_of_speaker(name, self._roles) is not None:
            return turn
        if not isinstance(said, str):
            return turn
        said = f"{name}: {said.strip()}" if said.strip() else said
        return {**turn, speaker: self._name_of("user"), text: said}

    def _name_of(self, role: Role) -> str:
        names: Sequence[str] = getattr(self._speakers, role)
        return names[0] if names else role

    def _pair(self, pair: Any, path: str, to: str, index: int) -> list[dict[str, Any]]:
        """Return the two turns of an item; the keys beside its texts belong to the answer."""
        turns: list[dict[str, Any]] = []
        read: list[PathSteps] = []
        roles: tuple[Role, Role] = ("user", "assistant")
        for name in roles:
            at = f"{to}[{index + len(turns)}]"
            self._paths[at] = path
            read.append(getattr(self._columns, name))
            text = self._moved(pair, read[-1], path, f"{at}.content", name)
            turns.append({"role": self._name_of(name), "content": text})
        reserved = frozenset({*SPEAKER_KEYS, *TEXT_KEYS})
        self._keep_beside(pair, path, read, turns[1], f"{to}[{index + 1}]", reserved)
        return turns

    def _moved(self, value: Any, steps: PathSteps, path: str, to: str, column: str) -> Any:
        """Return the value of a column, which has the path ``to`` in the rewritten line."""
        self._paths[to] = whole = path_of(path, steps)
        try:
            return value_at(value, steps)
        except LookupError:
            what = "line" if path == "$" else "turn"
            message = f"data.columns.{column}: the {what} has no {whole}"
            self._refuse("missing-column", path, message)
            return _MISSING

    def _keep_beside(
        self,
        value: Any,
        path: str,
        read: Sequence[PathSteps],
        rewritten: dict[str, Any],
        to: str,
        reserved: frozenset[str],
    ) -> None:
        """Add everything beside the values that are read; what has no place there is unread."""
        for at, key, item in beside(value, path, read, ""):
            if key in rewritten and key in TRAIN_KEYS and rewritten[key] != item:
                self._refuse("train-conflict", at, f'two keys "{key}" contradict each other')
            elif key in rewritten or key in reserved:
                self.unread.append(UnreadItem(at, key, item))
            else:
                rewritten[key] = item
                if self.original(place := member(to, key)) != at:
                    self._paths[place] = at

    def _refuse(self, code: str, path: str, message: str) -> None:
        self.is_refused = True
        self._found(Problem(code, message, path))
