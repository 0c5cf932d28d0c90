"""Surveys of the lines that are no dialogues, because their keys or speakers are not known.

Each line is surveyed alone, so the result does not depend on how a file is cut into blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from convo_cli.data.roles.likely_columns import likely_columns
from convo_cli.data.roles.proposal import ColumnPaths, Proposal, propose
from convo_cli.data.roles.survey import Survey
from convo_cli.data.shapes.items.turn_keys import keys_of_turn
from convo_cli.data.shapes.mapped.steps import Columns, columns_at, columns_of, turn_lists, value_at
from convo_cli.data.shapes.speakers import roles_by_name

if TYPE_CHECKING:
    from convo_cli.config.schema import DataConfig

_KEYS = frozenset({"unknown-shape", "missing-key"})
_SPEAKERS = frozenset({"unknown-speaker", "system-not-first"})
SURVEYED = _KEYS | _SPEAKERS
"""Problems of a line that a mapping may solve."""


class BadLines(msgspec.Struct):
    """A survey for each mapping that a line may need."""

    surveys: dict[ColumnPaths, Survey] = msgspec.field(default_factory=dict)

    def add(self, value: Any, codes: Collection[str], config: DataConfig) -> None:
        """Add a decoded line with problems of these codes."""
        paths: ColumnPaths = ()
        columns = columns_of(config.columns)
        if not _KEYS.isdisjoint(codes):
            paths = likely_columns(value) if columns is None else ()
            columns = columns_at(dict(paths))
            if columns is None:
                return
        names = list(_names(value, columns))
        self.surveys.setdefault(paths, Survey()).add_dialogue(names, roles_by_name(config.speakers))

    def merge(self, other: BadLines) -> None:
        """Add the surveys of later lines."""
        for paths, survey in other.surveys.items():
            self.surveys.setdefault(paths, Survey()).merge(survey)

    def proposal(self, config: DataConfig, *, has_good: bool) -> Proposal | None:
        """Return the mapping that the most lines need."""
        if not self.surveys:
            return None
        paths, survey = max(self.surveys.items(), key=lambda item: item[1].num_lines)
        keeps_current = has_good or len(self.surveys) > 1
        return propose(paths, survey, config.speakers, keeps_current=keeps_current)


def _names(value: Any, columns: Columns | None) -> Iterator[str]:
    """Yield the name of the speaker of each turn in order."""
    for turns in turn_lists(value, columns):
        for turn in turns:
            name = _name(turn, columns)
            if isinstance(name, (str, int)) and not isinstance(name, bool):
                yield str(name)


def _name(turn: Any, columns: Columns | None) -> Any:
    if columns is not None and columns.speaker is not None:
        try:
            return value_at(turn, columns.speaker)
        except LookupError:
            return None
    key = keys_of_turn(tuple(turn))[0] if isinstance(turn, dict) else None
    return None if key is None else turn[key]
