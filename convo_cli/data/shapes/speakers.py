"""Roles of the speaker names in the data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from convo_cli.data.dialogue import Role
from convo_cli.errors import ConfigError
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from convo_cli.config.schema import SpeakersConfig


@lru_cache(maxsize=16)
def roles_by_name(speakers: SpeakersConfig) -> dict[str, Role]:
    """Return the role of each lower-case name; ConfigError if a name has two roles."""
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
                    f"data.speakers: {quoted(name)} is listed for both {other} and {role}",
                    hint=f"remove it from data.speakers.{other} or data.speakers.{role}",
                )
    return roles


_NAMES_IN_PAIRS = """
    user human customer client prompter assistant gpt bot chatbot model ai system developer
"""
NAMES_IN_PAIRS = frozenset(
    form(name)
    for name in _NAMES_IN_PAIRS.split()
    for form in (str.lower, str.capitalize, str.upper)
)
"""Texts that make a pair [speaker, text]. They are also suspicious, for `checks.bulk`."""


_NAME_KEYS: Mapping[str, Role] = {
    "char_name": "assistant",
    "character_name": "assistant",
    "bot_name": "assistant",
    "assistant_name": "assistant",
    "user_name": "user",
}
"""Keys of a line that name one of its speakers."""


def named_in(line: Mapping[str, Any]) -> dict[str, tuple[Role, str]]:
    """Return the role of each lower-case name that a line gives to a speaker, with its key."""
    named: dict[str, tuple[Role, str]] = {}
    for key, role in _NAME_KEYS.items():
        if isinstance(name := line.get(key), str):
            named.setdefault(name.casefold(), (role, key))
    return named
