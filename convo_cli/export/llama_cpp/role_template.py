"""A chat template as an opening and an ending for each role, found by rendering marks.

Jinja is not parsed. A template fits if every turn has an opening and an ending by its role, as in
ChatML, Llama 3, Zephyr or Llama 2. One that moves the system text to the last turn, or drops
reasoning from earlier replies, does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeAlias

from convo_cli.data.dialogue import Role, Turn
from convo_cli.text.tokenizers.vocabulary import MARK

Render: TypeAlias = Callable[[Sequence[Sequence[Turn]], bool], Sequence[str | None]]
"""Renders dialogues, with the generation prompt or without; None for a refused one."""

SPACE = " \t\n\r\v\f"
"""Whitespace that a template may remove around a text; llama.cpp's Jinja removes the same."""
_MARKS = re.compile(f"{MARK}([0-9]+){MARK}")
_OF_THE_DAY = "strftime_now"
"""A chat template with this function may render another text tomorrow."""
_ROLES: Mapping[str, Role] = {"s": "system", "u": "user", "a": "assistant"}


@dataclass(frozen=True, slots=True)
class RoleTemplate:
    """The text that a chat template writes around the texts of turns."""

    start: str
    """The text before a first system turn."""
    start_without_system: str
    before: Mapping[Role, str]
    """The opening of a turn, for each role that the template accepts."""
    after: Mapping[Role, str]
    prompt: str
    """The opening of the reply."""
    system_is_first: bool
    """Only the first turn may be a system turn."""
    system_opens_user: bool
    """The user turn after a first system turn has no opening of its own."""
    trimmed: frozenset[Role]
    """Roles whose texts lose the whitespace around them."""

    def render(self, turns: Sequence[Turn]) -> str | None:
        """Return the prompt, or None for roles without a place."""
        has_system = turns[0].role == "system"
        parts = [self.start if has_system else self.start_without_system]
        for index, turn in enumerate(turns):
            is_late = turn.role == "system" and self.system_is_first and index > 0
            if turn.role not in self.before or is_late:
                return None
            is_open = self.system_opens_user and has_system and (index, turn.role) == (1, "user")
            text = turn.text.strip(SPACE) if turn.role in self.trimmed else turn.text
            parts += ["" if is_open else self.before[turn.role], text, self.after[turn.role]]
        return "".join([*parts, self.prompt])


def find_role_template(chat_template: str, render: Render) -> RoleTemplate | None:
    """Return a template by roles; None if it renders one of several kinds of dialogues differently.

    A dialogue that the chat template refuses for the order of its turns is not compared.
    """
    if _OF_THE_DAY in chat_template:
        return None
    try:
        found = _find(render)
    except _OtherFormError:
        return None
    pairs = zip(_PROBES, render(_PROBES, True), strict=True)
    is_equal = all(text is None or found.render(turns) == text for turns, text in pairs)
    return found if is_equal else None


class _OtherFormError(Exception):
    """A chat template does not write an opening and an ending by the role of a turn."""


def _find(render: Render) -> RoleTemplate:
    dialogue, of_assistant = render([_marked("uau"), _marked("au")], True)
    user_alone, answered = render([_marked("u"), _marked("ua")], False)
    start, to_assistant, to_user, to_reply = _split(dialogue, 3)
    after_user = common_start(_split(user_alone, 1)[-1], to_assistant)
    after_assistant = common_start(_split(answered, 2)[-1], to_user)
    user = to_user.removeprefix(after_assistant)
    if not start.endswith(user):  # a line break between turns, but none after the last one
        user = _common_end(start, user)
        after_assistant = to_user.removesuffix(user)
    start = start.removesuffix(user)
    assistant = to_assistant.removeprefix(after_user)
    if of_assistant is not None and of_assistant.startswith(start):
        first = _split(of_assistant, 2)[0].removeprefix(start)
        if to_assistant.endswith(first):
            assistant, after_user = first, to_assistant.removesuffix(first)
    before: dict[Role, str] = {"user": user, "assistant": assistant}
    after: dict[Role, str] = {"user": after_user, "assistant": after_assistant}
    system = _find_system(render, before, after)
    if system is not None:
        before, after = {"system": system.before, **before}, {"system": system.after, **after}
    if not to_reply.startswith(after_user):
        raise _OtherFormError
    return RoleTemplate(
        start=system.start if system else start,
        start_without_system=start,
        before=before,
        after=after,
        prompt=to_reply.removeprefix(after_user),
        system_is_first=system is not None and system.is_first,
        system_opens_user=system is not None and system.opens_user,
        trimmed=_find_trimmed(render, "suau" if system else "uau"),
    )


@dataclass(frozen=True, slots=True)
class _System:
    start: str
    before: str
    after: str
    is_first: bool
    opens_user: bool


def _find_system(
    render: Render, before: Mapping[Role, str], after: Mapping[Role, str]
) -> _System | None:
    """Return the texts around a system turn; None if the template has no place for it."""
    first, late = render([_marked("suau"), _marked("uasu")], True)
    if first is None:
        return None
    start, to_user, *_ = _split(first, 4)
    opens_user = not to_user.endswith(before["user"])
    after_system = to_user if opens_user else to_user.removesuffix(before["user"])
    try:
        *_, to_system, to_late_user, _ = _split(late, 4)
    except _OtherFormError:  # refused, or moved to the start
        to_system = to_late_user = ""
    opening = to_system.removeprefix(after["assistant"])
    is_late = to_late_user == to_user and to_system.startswith(after["assistant"])
    if opens_user or not is_late or not start.endswith(opening):
        return _System("", start, after_system, True, opens_user)
    return _System(start.removesuffix(opening), opening, after_system, False, False)


def _find_trimmed(render: Render, roles: str) -> frozenset[Role]:
    turns = [Turn(turn.role, f"{SPACE}{turn.text}{SPACE}") for turn in _marked(roles)]
    own_texts = _split(render([turns], True)[0], len(turns))
    pairs = zip(turns, own_texts[:-1], strict=True)
    return frozenset(turn.role for turn, before in pairs if not before.endswith(SPACE))


def _split(rendered: str | None, num_texts: int) -> list[str]:
    """Return the text around marks, which has to contain each mark once and in order."""
    parts = _MARKS.split(rendered or "")
    if parts[1::2] != [str(number) for number in range(num_texts)]:
        raise _OtherFormError
    return parts[::2]


def common_start(one: str, other: str) -> str:
    """Return the longest text with which both begin."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(letter for letter, _ in same)


def _common_end(one: str, other: str) -> str:
    return common_start(one[::-1], other[::-1])[::-1]


def _marked(roles: str) -> list[Turn]:
    """Return a dialogue with marks as its texts, by the first letters of its roles."""
    return [Turn(_ROLES[role], f"{MARK}{index}{MARK}") for index, role in enumerate(roles)]


def _dialogue(roles: str, *texts: str) -> list[Turn]:
    return [Turn(_ROLES[role], text) for role, text in zip(roles, texts, strict=True)]


_PROBES = [
    _dialogue("u", "Hello!"),
    _dialogue("su", "Be brief.", "What is the capital of Peru?"),
    _dialogue("uau", "여보세요?", "네, 말씀하세요.", "날씨가 어때요?\n\n그리고 내일은?"),
    _dialogue("suauau", "You are {{ name }}.", "{% x %}", "{{ y }}", "[INST] a", "</s>", "b"),
    _dialogue("uau", "Think!", "<think>Hm.</think>\n\nDone.", "And now?"),
    _dialogue("uauauauau", *"abcdefghi"),
    _dialogue("uau", "  two lines\n", "\n an answer ", "\tindented\n\n"),
    _dialogue("su", " \n spaces ", "\n"),
    _dialogue("auau", "I begin.", "Why?", "I may.", "Fine."),
    _dialogue("sau", "Begin.", "I begin.", "Why?"),
]
