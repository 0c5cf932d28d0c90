"""Objects in a list of turns: one turn, or the turns under keys that name their speakers.

{"role": "user", "content": "Hello"}          and every other speaker and text of `turn_keys`
{"message": {"role": …, "content": …}}        the same inside an object
{"human": "Hello", "assistant": "Hi!"}        a pair, which may have its system text
{"user": "Hello"}                             nothing but keys that are speaker names
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from convo_cli.data.dialogue import ROLES, Role
from convo_cli.data.shapes.items.other_replies import KEY as REFERENCES
from convo_cli.data.shapes.known_keys import REASONING_KEYS, TRAIN_KEYS
from convo_cli.data.shapes.table import SYSTEM_KEYS, pair_keys


class Keyed(NamedTuple):
    """A text whose key gives its role."""

    role: Role
    key: str


def keyed_texts(entry: Mapping[str, Any], roles: Mapping[str, Role]) -> list[Keyed]:
    """Return the keys of an object that are roles, in the order of the dialogue; empty for others.

    ``roles`` are the roles of lower-case speaker names.
    """
    if pair := pair_keys(entry):
        systems = [Keyed("system", key) for key in SYSTEM_KEYS if entry.get(key)]
        return [*systems, Keyed("user", pair[0]), Keyed("assistant", pair[1])]
    beside = {*TRAIN_KEYS, *REASONING_KEYS, REFERENCES}
    named = {key: roles.get(key.casefold()) for key in entry if key not in beside}
    found = [Keyed(role, key) for key, role in named.items() if role is not None]
    is_once = len({role for role, _ in found}) == len(found) == len(named)
    return sorted(found, key=lambda each: ROLES.index(each.role)) if is_once else []
