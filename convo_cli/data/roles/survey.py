"""Survey of the speakers of many dialogues: what their names and the order of turns say.

In a dialogue, a name with a role gives the other names theirs: a person who talks with an agent
is a user. Where no name says more than the others, the order does: a user begins, and an assistant
answers and has the last word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from convo_cli.data.dialogue import Role
from convo_cli.data.roles.role_words import MAX_NAME, Hint, hint_of

MAX_NAMES = 100
"""Most names that a survey keeps."""
_BY_NAME = 3
"""Weight of a role that a name gives, against 1 for the order of turns."""
Basis = Literal["names", "order"]


class Speaker(msgspec.Struct):
    """The dialogues of one name, and the votes for its role."""

    num_turns: int = 0
    num_dialogues: int = 0
    votes: dict[Role, int] = msgspec.field(default_factory=dict)
    num_opening_alone: int = 0
    """Dialogues of several others that the name opens with its only turn."""

    def vote(self, role: Role, weight: int = 1) -> None:
        self.votes[role] = self.votes.get(role, 0) + weight

    def add(self, other: Speaker) -> None:
        self.num_turns += other.num_turns
        self.num_dialogues += other.num_dialogues
        self.num_opening_alone += other.num_opening_alone
        for role, weight in other.votes.items():
            self.vote(role, weight)


class Survey(msgspec.Struct):
    """Speakers by name, in the order in which they first speak."""

    speakers: dict[str, Speaker] = msgspec.field(default_factory=dict)
    num_lines: int = 0
    max_people: int = 0
    """Largest number of speakers in one dialogue."""
    has_more: bool = False
    """True if there are names beyond `MAX_NAMES`."""

    def add_dialogue(self, names: Sequence[str], roles: Mapping[str, Role]) -> None:
        """Add the names of a dialogue's turns in order; ``roles`` has those that are configured."""
        self.num_lines += 1
        hints = {name: _hint(name, names, roles) for name in dict.fromkeys(names)}
        people = [name for name, hint in hints.items() if hint != "tool"]
        opening = names[0] if names else ""
        is_alone = len(people) == 3 and len(names) >= 5 and names.count(opening) == 1
        is_alone = is_alone and hints[opening] is None
        talking = [name for name in people if hints[name] != "system"]
        if is_alone:
            talking.remove(opening)
        self.max_people = max(self.max_people, len(talking))
        known = {hint for name in talking if (hint := hints[name]) is not None}
        for name in people:
            speaker = self._speaker(name)
            if speaker is None:
                continue
            speaker.num_turns += names.count(name)
            speaker.num_dialogues += 1
            if hints[name] == "system":
                speaker.vote("system", _BY_NAME)
            elif is_alone and name == opening:
                speaker.num_opening_alone += 1
                speaker.vote("system")
            elif len(known) == 2 or (known and len(talking) == 1):
                self._vote_by_name(speaker, hints[name], None)
            elif len(known) == 1 and any(hints[other] is None for other in talking):
                self._vote_by_name(speaker, hints[name], known)
            elif len(talking) > 1:
                self._vote_by_order(speaker, name, talking, names)

    def merge(self, other: Survey) -> None:
        """Add the survey of later dialogues."""
        self.num_lines += other.num_lines
        self.max_people = max(self.max_people, other.max_people)
        self.has_more |= other.has_more
        for name, speaker in other.speakers.items():
            if (known := self._speaker(name)) is not None:
                known.add(speaker)

    def _speaker(self, name: str) -> Speaker | None:
        is_name = name.isprintable() and 0 < len(name) <= MAX_NAME
        if name not in self.speakers and (len(self.speakers) >= MAX_NAMES or not is_name):
            self.has_more = True
            return None
        return self.speakers.setdefault(name, Speaker())

    def _vote_by_name(self, speaker: Speaker, hint: Hint | None, known: set[Hint] | None) -> None:
        """Vote for the role that a name has, or that the names of the others leave for it."""
        if hint == "user" or hint == "assistant":
            speaker.vote(hint, _BY_NAME)
        elif known is not None:
            speaker.vote("user" if "assistant" in known else "assistant", _BY_NAME)
        else:
            speaker.vote("user")

    def _vote_by_order(
        self, speaker: Speaker, name: str, talking: Sequence[str], names: Iterable[str]
    ) -> None:
        """Vote for the user if the name begins, for the assistant if it answers."""
        if name == talking[0]:
            speaker.vote("user")
        elif len(talking) == 2:
            speaker.vote("assistant")
        else:
            last = [one for one in names if one in talking][-1]
            speaker.vote("assistant" if name == last else "user")


def _hint(name: str, names: Sequence[str], roles: Mapping[str, Role]) -> Hint | None:
    """Return the role that a name has in this dialogue; a system that talks is an assistant."""
    role = roles.get(name.casefold())
    hint = role if role in ("user", "assistant", "system") else hint_of(name)
    is_talking = names[0] != name or names.count(name) > 1
    return "assistant" if hint == "system" and is_talking else hint


def names_by_role(survey: Survey) -> tuple[dict[Role, list[str]], Basis]:
    """Return the names with the role that each most likely has, and what says so.

    With two names or more, at least one is a user and at least one is an assistant.
    """
    roles: dict[str, Role] = {}
    order: tuple[Role, ...] = ("user", "assistant", "system")
    for name, speaker in survey.speakers.items():
        votes = Counter(speaker.votes)
        roles[name] = max(order, key=votes.__getitem__)
    talking = [name for name, role in roles.items() if role != "system"]
    both: tuple[tuple[Role, Role], ...] = (("assistant", "user"), ("user", "assistant"))
    for missing, other in both:
        if len(talking) > 1 and missing not in roles.values():
            leaning = {name: _leaning(survey.speakers[name], missing, other) for name in talking}
            roles[max(talking, key=leaning.__getitem__)] = missing
    is_by_name = any(
        weight >= _BY_NAME and role != "system"
        for one in survey.speakers.values()
        for role, weight in one.votes.items()
    )
    by_role: dict[Role, list[str]] = {"user": [], "assistant": [], "system": []}
    for name, role in roles.items():
        by_role[role].append(name)
    return by_role, "names" if is_by_name else "order"


def _leaning(speaker: Speaker, role: Role, other: Role) -> tuple[float, int]:
    """Return how much of its votes a name has for a role, and how rarely it speaks otherwise."""
    votes = Counter(speaker.votes)
    return votes[role] / max(1, votes[role] + votes[other]), votes[role]
