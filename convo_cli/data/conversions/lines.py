"""The problem of a line that holds another format of data."""

from __future__ import annotations

from typing import Any

from convo_cli.data.problems import Problem

_MISREAD_KEYS = frozenset({"question_id", "chosen"})
"""Keys of the formats that also have the keys of a dialogue."""


def other_format(value: Any, *, is_dialogue: bool) -> Problem | None:
    """Return the problem of a line in a named format that is not a dialogue as it stands.

    ``is_dialogue`` is True if the line has the keys of a dialogue.
    """
    if is_dialogue and (not isinstance(value, dict) or _MISREAD_KEYS.isdisjoint(value)):
        return None
    # Imported here, because most files need none of its patterns.
    from convo_cli.data.conversions.named_formats import misread, recognise

    found = misread(value) if is_dialogue else recognise(value)
    return None if found is None else found.of_line()
