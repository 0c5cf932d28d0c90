"""A mapping that would make a file readable: settings of `data.columns` and `data.speakers`.

It is written as `--set` options and as YAML. Both are read back to the same values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convo_cli.data.dialogue import ROLES, Role
from convo_cli.data.roles.survey import Basis, Survey, names_by_role
from convo_cli.data.shapes.speakers import roles_by_name
from convo_cli.errors import typeable

if TYPE_CHECKING:
    from convo_cli.config.schema import SpeakersConfig

ColumnPaths = tuple[tuple[str, str], ...]
"""Keys of `data.columns` with their paths."""

Lists = list[tuple[Role, tuple[str, ...]]]
"""Roles with all names of each."""

_REASONS: Mapping[Basis, str] = {
    "names": "the names of the speakers",
    "order": "the order in which the speakers talk",
}
_PLAIN = re.compile(r"[^\W\d_][\w -]{0,78}\w|[^\W\d_]")
_PLAIN_PATH = re.compile(r"[^\W\d_][\w.-]*(?:\[[0-9]+\][\w.-]*)*")
_OTHER_VALUES = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "none", "nan", "inf"}


@dataclass(frozen=True, slots=True)
class Proposal:
    """Values of config keys, and what they are inferred from."""

    settings: tuple[str, ...]
    """The values as `KEY=VALUE`, as `--set` reads them."""
    yaml: str
    """The values as lines of a config."""
    reason: str
    """What the values are inferred from, in words."""

    @property
    def options(self) -> str:
        """Return the values as options, as typed into a shell."""
        return " ".join(f"--set {typeable(setting)}" for setting in self.settings)


def propose(
    columns: ColumnPaths, survey: Survey, speakers: SpeakersConfig, *, keeps_current: bool
) -> Proposal | None:
    """Return the mapping for the speakers of a survey; None if nothing would change.

    ``keeps_current`` is true if other dialogues may need the current names.
    """
    by_role, basis = names_by_role(survey)
    keeps_names = survey.has_more or survey.max_people > 2
    current = roles_by_name(speakers)
    new = {name.casefold(): role for role in ROLES for name in by_role[role]}
    if all(current.get(name) == role for name, role in new.items()) and not survey.has_more:
        lists: Lists = []
        keeps_names = False
    else:
        if keeps_names:
            new = {name: role for name, role in new.items() if role != "user"}
            by_role = {**by_role, "user": []}
        lists = _changed(by_role, new, current, speakers, keeps_current=keeps_current)
    if not (columns or lists or keeps_names):
        return None
    return _proposal(columns, lists, basis if lists else None, keeps_names=keeps_names)


def _proposal(
    columns: ColumnPaths, lists: Lists, basis: Basis | None, *, keeps_names: bool
) -> Proposal:
    values = {
        "columns": {key: _yaml(path, _PLAIN_PATH) for key, path in columns},
        "speakers": {role: _yaml_list(names) for role, names in lists}
        | ({"keep_names": "true"} if keeps_names else {}),
    }
    lines = ["data:"]
    for section, keys in values.items():
        lines += [f"  {section}:"] * bool(keys)
        lines += [f"    {key}: {value}" for key, value in keys.items()]
    reasons = ["the keys"] * bool(columns)
    if basis is not None:
        reasons.append(_REASONS[basis])
    return Proposal(
        settings=tuple(
            f"data.{section}.{key}={value}"
            for section, keys in values.items()
            for key, value in keys.items()
        ),
        yaml="\n".join(lines),
        reason=" and ".join(reasons),
    )


def _changed(
    by_role: Mapping[Role, list[str]],
    new: Mapping[str, Role],
    current: Mapping[str, Role],
    speakers: SpeakersConfig,
    *,
    keeps_current: bool,
) -> Lists:
    """Return the lists that change: new names, and current ones that no other role takes."""
    lists: Lists = []
    for role in ROLES:
        before: tuple[str, ...] = getattr(speakers, role)
        names = {name.casefold(): name for name in by_role[role]}
        is_changed = any(current.get(name) != role for name in names)
        is_robbed = any(new.get(name.casefold(), role) != role for name in before)
        if not (is_changed or is_robbed):
            continue
        is_kept = keeps_current or not names
        kept = [name for name in before if is_kept and new.get(name.casefold(), role) == role]
        added = [name for plain, name in names.items() if plain not in map(str.casefold, kept)]
        lists.append((role, (*kept, *added)))
    return lists


def _yaml_list(names: tuple[str, ...]) -> str:
    return f"[{', '.join(_yaml(name, _PLAIN) for name in names)}]"


def _yaml(text: str, plain: re.Pattern[str]) -> str:
    """Return a text as a YAML scalar, in double quotes unless it is plain everywhere."""
    if plain.fullmatch(text) and text.casefold() not in _OTHER_VALUES:
        return text
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
