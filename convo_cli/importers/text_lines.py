"""Reader of the lines of a text file; a line has a limit, so that memory is bounded."""

from __future__ import annotations

from collections.abc import Iterator

from convo_cli.errors import DataError
from convo_cli.importers.source_files import Source

MAX_LINE_CHARACTERS = 2**20
"""Longest line of a chat, 1 Mi characters."""


def iter_lines(source: Source, name: str) -> Iterator[tuple[int, str]]:
    """Yield the number (from 1) and the text of every line, without LF; a CR stays.

    DataError for a line of more than `MAX_LINE_CHARACTERS`.
    """
    with source.open_text(name) as file:
        number = 0
        while line := file.readline(MAX_LINE_CHARACTERS + 1):
            number += 1
            if len(line) > MAX_LINE_CHARACTERS:
                raise too_long(source.shown(name), number, "the line")
            yield number, line.removesuffix("\n")


def too_long(where: str, number: int, what: str) -> DataError:
    """Return the refusal of a line or message that no chat has."""
    limit = f"{MAX_LINE_CHARACTERS:,} characters"
    return DataError(
        f"{where}: line {number}: {what} is longer than {limit}, so this is not a chat",
        hint="check that the file is a complete chat export",
    )
