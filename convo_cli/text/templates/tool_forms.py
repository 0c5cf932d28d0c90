"""Tool calls in templates."""

from __future__ import annotations

from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError

_NAMES = {"tools": "the definitions of tools", "tool": "the result of a tool call"}


def no_place_for(turn: Turn, template: str) -> DataError:
    """Return the error of a template that has no place for a turn with tools."""
    return DataError(f"{template} has no place for {_NAMES.get(turn.role, 'a tool call')}")
