"""Collector of the turns of one line: roles, reasoning, empty texts, and keys that are not read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convo_cli.data.conversions.commands import Conversion
from convo_cli.data.dialogue import ROLES, Role, Turn
from convo_cli.data.problems import Problem, ProblemSink, kind_of, member
from convo_cli.data.shapes.items.content import texts_of_parts
from convo_cli.data.shapes.items.other_replies import KEY as REFERENCES
from convo_cli.data.shapes.items.other_replies import holds_replies
from convo_cli.data.shapes.known_keys import TRAIN_KEYS, is_reasoning_key, says_training
from convo_cli.data.shapes.reasoning import with_reasoning
from convo_cli.data.shapes.speakers import roles_by_name
from convo_cli.data.shapes.unread import UnreadItem
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from convo_cli.config.schema import DataConfig

NOTHING: Mapping[str, Any] = {}

LocatedTurn = tuple[str, Turn]
"""The path of a text in its line, and the turn."""


class TurnCollector:
    """Collects turns in order; problems go to ``found``."""

    def __init__(self, data_config: DataConfig, found: ProblemSink) -> None:
        self.turns: list[LocatedTurn] = []
        self.unread: list[UnreadItem] = []
        self.is_refused = False
        self.num_line_ends = 0
        """Texts with carriage returns."""
        self.num_stripped = 0
        """Texts with white space at an end."""
        self._trained_path = ""  # of the first turn that states that it is trained on
        self._found = found
        self._reasoning = data_config.reasoning
        self.roles: Mapping[str, Role] = roles_by_name(data_config.speakers)
        self.names: Mapping[str, tuple[Role, str]] = {}
        """Names of speakers with another role on this line, and the keys that name them."""
        self.used_names: set[str] = set()
        """Keys among them whose name is a speaker."""
        self.text_path = ""
        """Path of the string that holds the turns as JSON; their paths do not exist in the line."""

    def add(
        self,
        role: Role,
        text: Any,
        path: str,
        *,
        index: int = -1,
        is_trained: bool | None = None,
        beside: Mapping[str, Any] = NOTHING,
        at: str = "$",
        tool_data: str = "",
    ) -> None:
        """Add a turn.

        ``beside`` is the object at path ``at`` that may hold its reasoning and other replies. With
        ``tool_data`` the text may be empty.
        """
        if isinstance(text, list) and text:
            text = self._joined(text, path)
            if text is None:
                return
        if not isinstance(text, str):
            self.refuse("text-not-string", path, f"the text is {kind_of(text)}, not a string")
            return
        self.num_stripped += text != text.strip()
        has_reasoning = False
        if role == "assistant" and (beside or "<" in text):
            text, has_reasoning = with_reasoning(
                text, path, beside, at, self._reasoning, self.refuse
            )
        text = self._one_form(text, path)
        if not text and not tool_data:
            what = "the text is empty" + " without its reasoning" * has_reasoning
            self.refuse("empty-utterance", path, what)
        elif role == "system" and (index > 0 or self.turns):
            self.refuse("system-not-first", path, "the system turn comes after another turn")
        else:
            if is_trained:
                self._trained_path = self._trained_path or at
            turn = Turn(role, text, is_trained is not False, has_reasoning, tool_data)
            if turn.is_reply and holds_replies(beside.get(REFERENCES)):
                others = self._references(beside[REFERENCES], text, member(at, REFERENCES))
                turn = replace(turn, references=others)
            self.turns.append((self.text_path or path, turn))

    def _one_form(self, text: str, path: str) -> str:
        """Return a text without white space at its ends, and with newlines as line ends."""
        text = text.strip()
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
            self.num_line_ends += 1
            message = "the text has a carriage return (U+000D)"
            self._found(Problem("carriage-return", message, path))
        return text

    def _references(self, value: Any, reply: str, path: str) -> tuple[str, ...]:
        """Return the other replies to a turn; refuse what is no text, or known already."""
        if not isinstance(value, list):
            self.refuse(REFERENCES, path, f"the references are {kind_of(value)}, not a list")
            return ()
        places = {reply: "the reply"}
        for index, text in enumerate(value):
            at = f"{path}[{index}]"
            if not isinstance(text, str):
                self.refuse(REFERENCES, at, f"the reference is {kind_of(text)}, not a string")
                continue
            text, _ = with_reasoning(text, at, NOTHING, at, self._reasoning, self.refuse)
            text = self._one_form(text, at)
            if not text:
                self.refuse(REFERENCES, at, "the reference is empty")
            elif text in places:
                self.refuse(REFERENCES, at, f"the reference is the same as {places[text]}")
            places.setdefault(text, f"references[{index}]")
        return tuple(places)[1:]

    def exclude(self) -> None:
        """Mark every turn as not trained on; refuse a turn that states the opposite."""
        if self._trained_path:
            message = "the turn is marked as trained on, but its dialogue as not trained on"
            self.refuse("train-conflict", self._trained_path, message)
        self.turns = [(path, replace(turn, is_trained=False)) for path, turn in self.turns]

    def is_plain(self, turn: Mapping[str, Any], speaker_key: str, text_key: str | None) -> bool:
        """Return whether a turn has only a known speaker and a text."""
        name = turn[speaker_key]
        is_known = isinstance(name, str) and name in self.roles
        return is_known and text_key is not None and len(turn) == 2

    def role_of(self, name: Any, path: str) -> Role | None:
        """Return the role of a speaker; None if it has none, which is a problem."""
        if isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str):
            self.refuse("unknown-speaker", path, f"the speaker is {kind_of(name)}, not a name")
            return None
        role = self.roles.get(name.casefold())
        if role is None and name.casefold() in self.names:
            role, key = self.names[name.casefold()]
            self.used_names.add(key)
        if role is None:
            message = f"the speaker {quoted(name)} has no role"
            self.refuse("unknown-speaker", path, message)
        return role

    def note_unread(
        self,
        value: dict[str, Any],
        path: str,
        read: Collection[str | None],
        role: Role | None = None,
        *,
        is_call: bool = False,
    ) -> None:
        """Note every key of the object at ``path`` outside ``read``.

        ``role`` is that of the turn that the keys belong to; None if they belong to no turn. A turn
        that ``is_call`` has no other replies.
        """
        is_reply = role == "assistant"
        for key, item in value.items():
            if key in read or key in TRAIN_KEYS or says_training(key):
                continue
            if key == REFERENCES and role in ROLES and not is_call and holds_replies(item):
                if not is_reply:
                    message = f"a turn of the {role} has references; only replies have them"
                    self.refuse(REFERENCES, member(path, key), message)
            elif not (is_reply and is_reasoning_key(key)):
                self.unread.append(UnreadItem(self.text_path or member(path, key), key, item))

    def _joined(self, parts: list[Any], path: str) -> str | None:
        """Return the texts of the parts; None if there is a problem."""
        texts: list[str] = []
        is_refused = False
        for item in texts_of_parts(parts, path):
            if isinstance(item, str):
                texts.append(item)
            elif isinstance(item, UnreadItem):
                self.unread.append(item._replace(path=self.text_path or item.path))
            else:
                is_refused = True
                self.report(item)
        return None if is_refused else "\n".join(filter(None, texts))

    def refuse(self, code: str, path: str, message: str, advice: str | Conversion = "") -> None:
        """Report a problem for which the line is not a dialogue."""
        self.report(Problem(code, message, path, advice=advice))

    def report(self, problem: Problem) -> None:
        """Report a problem of the line, at the path of the JSON text that it is in."""
        self.is_refused = True
        if self.text_path and problem.path != self.text_path:
            message = f"{problem.message} (at {problem.path} of the JSON text)"
            problem = replace(problem, message=message, path=self.text_path)
        self._found(problem)
