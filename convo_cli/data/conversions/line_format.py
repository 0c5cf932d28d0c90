"""A format of data that convo converts: its name, and the command for a file of it."""

from __future__ import annotations

from typing import NamedTuple

from convo_cli.data.conversions.commands import Conversion, by_jq
from convo_cli.data.problems import Problem


class Format(NamedTuple):
    """A format of data, recognised by one of its values."""

    what: str
    """What one value is: "a message of an OASST dump"."""
    program: str = ""
    """The jq program that converts one value; without one, ``command`` converts the file."""
    needs_all: bool = False
    """True if the program converts the list of all values."""
    note: str = "convert the file"
    more_files: str = ""
    """Names of files that the program reads after this one."""
    command: Conversion | None = None

    def of_line(self) -> Problem:
        """Return the problem of a line in this format."""
        conversion = self.command or by_jq(
            self.program, self.note, "-sc" if self.needs_all else "-c", self.more_files
        )
        return Problem("other-format", f"the line is {self.what}", advice=conversion)

    def of_array(self) -> Conversion:
        """Return the command for a file that is an array of such values."""
        program = self.program if self.needs_all else f".[] | {self.program}"
        return self.command or by_jq(program, self.note, "-c", self.more_files)
