"""Output to people and programs: stdout carries the result, stderr all else.

Foreign text never acts on a terminal. Rich passes ESC and C1 bytes of a string straight through, so
text from data, config, file names or a model goes through `printable` first, and is printed as
`rich.text.Text` or with ``markup=False``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from convo_cli import __version__
from convo_cli.errors import ConvoError, StoppedError
from convo_cli.unseen import UNSEEN, escape_unseen
from convo_cli.wording import on_one_line
from convo_cli.world import is_first_process

if TYPE_CHECKING:
    from rich.console import Console

JSON_VERSION = 2
"""Version of the `--json` objects. Version 2: an error keeps the command's name in ``command``."""

# Whole sequences first (ECMA-48): CSI, then the string sequences OSC, DCS, SOS, PM, APC with their
# terminator, then two-byte escapes, then each remaining C0 and C1 character. Newline and tab stay.
# A string without a terminator, or one longer than those in use, loses only its beginning: the rest
# is shown as text. Characters of `UNSEEN` are removed too, because they would reorder or hide the
# text that convo prints after them on the same line.
_STRING = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x08\n-\x1f\x7f-\x9f]{0,4096}"
_CSI = r"(?:\x1b\[|\x9b)[0-?]{0,256}[ -/]{0,16}"
_ESCAPE = r"\x1b[ -/]{0,16}"
_CONTROL = re.compile(
    rf"{_CSI}[@-~]|{_STRING}(?:\x07|\x1b\\|\x9c)|{_ESCAPE}[0-~]?"
    rf"|[\x00-\x08\x0b-\x1f{UNSEEN}]"
)
_UNFINISHED = re.compile(rf"(?:{_CSI}|{_STRING}\x1b?|{_ESCAPE})\Z")
"""The beginning of a sequence, which the next characters may complete."""
_SEPARATOR = re.compile(r"[/=]")
_LONGEST_MESSAGE = 20_000  # characters of one error or notice


def printable(text: str) -> str:
    """Remove control sequences and invisible characters but newlines and tabs.

    A lone surrogate becomes a question mark.
    """
    return _CONTROL.sub("", text).encode("utf-8", "replace").decode("utf-8")


class PrintableStream:
    """`printable` for a text that arrives in pieces: the joined result does not depend on the cuts.

    Only the beginning of a sequence is held back, at most as many characters as a sequence may
    have.
    """

    def __init__(self) -> None:
        self._unfinished = ""

    def push(self, piece: str) -> str:
        """Return the text that can be shown now."""
        text = self._unfinished + piece
        unfinished = _UNFINISHED.search(text)
        end = unfinished.start() if unfinished else len(text)
        self._unfinished = text[end:]
        return printable(text[:end])

    def finish(self) -> str:
        """Return the text that was held back; no piece comes after this."""
        text, self._unfinished = self._unfinished, ""
        return printable(text)


def with_given_names(text: str) -> str:
    """Replace line breaks in the names that the user gave, or in the working folder, by escapes."""
    words = sys.argv[1:]
    with suppress(OSError):  # the working folder was deleted
        words.append(os.getcwd())  # without pathlib at start-up
    names = {name for word in words for name in _SEPARATOR.split(word) if name.strip()}
    for name in names:
        if (shown := on_one_line(name)) != name:
            text = text.replace(name, shown)
    return text


def shortened(message: str) -> str:
    """Shorten a message in the middle if it is too long to read, because it quotes a file."""
    if len(message) <= _LONGEST_MESSAGE:
        return message
    half = _LONGEST_MESSAGE // 2
    return f"{message[:half]} […] {message[-half:]}"


def print_line(console: Console, line: str, style: str = "") -> None:
    """Print a line that may hold foreign text; it is not wrapped, so that paths can be copied."""
    from rich.text import Text

    console.print(Text(printable(line).replace("\n", " "), style=style), soft_wrap=True)


def stderr_console() -> Console:
    """Return a Rich console on stderr: colours and live views only on a terminal."""
    from rich.console import Console

    return Console(
        stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=not sys.stderr.isatty()
    )


def stdout_console() -> Console:
    """Return a Rich console on stdout, for results that are tables or coloured text."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())


def print_json(command: str | None, result: Mapping[str, Any]) -> None:
    """Write the versioned `--json` object to stdout; a lone surrogate becomes a ?."""
    envelope = {"convo": __version__, "json_version": JSON_VERSION, "command": command, **result}
    text = escape_unseen(json.dumps(envelope, ensure_ascii=False, allow_nan=False))
    sys.stdout.write(text.encode("utf-8", "replace").decode("utf-8") + "\n")


def announce(line: str, *, is_quiet: bool) -> None:
    """Tell the user on stderr what begins now, without rich, before seconds of imports.

    Of the processes that torchrun starts, only rank 0 does.
    """
    if not is_quiet and is_first_process():
        sys.stderr.write(printable(line).replace("\n", " ") + "\n")
        sys.stderr.flush()


def show_error(error: ConvoError, *, command: str | None = None, as_json: bool = False) -> None:
    """Show an error on stderr, and with ``as_json`` as an object on stdout too.

    A stop that the user asked for is no error, so it is shown without that word.
    """
    label = "" if isinstance(error, StoppedError) else "error: "
    hint = f"\nhint: {error.hint}" if error.hint else ""
    text = with_given_names(shortened(f"{label}{error.message}{hint}"))
    sys.stderr.write(printable(text) + "\n")
    if as_json:
        detail = {
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
            "problems": [asdict(problem) for problem in error.problems],
        }
        print_json(command, {"error": detail})
