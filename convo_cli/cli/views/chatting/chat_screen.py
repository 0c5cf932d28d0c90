"""Output of a chat: replies on stdout as they arrive, and all else on stderr.

No line is wider than the terminal, and no control sequence of a foreign text reaches it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from convo_cli.cli.console import PrintableStream, printable
from convo_cli.cli.views.chatting.wrapping import WordWrap, columns

USER, MODELS = "cyan", ("magenta", "yellow", "green", "blue")
"""Colours of the labels; those of several models repeat."""
_CODES = {"cyan": 36, "magenta": 35, "yellow": 33, "green": 32, "blue": 34}
_PLAIN_TERMINALS = (None, "", "dumb", "unknown")
_WIDTH = 80  # of a stream without a size
_WIDEST = 10_000
_RECALLED = 1000  # characters of a turn


class TerminalClosedError(KeyboardInterrupt):
    """The terminal was closed during a reply; the session keeps the part that was streamed."""


def is_plain_terminal() -> bool:
    """Return whether the terminal obeys no control sequences, as the shell of an editor."""
    return os.environ.get("TERM") in _PLAIN_TERMINALS


def width_of(stream: TextIO) -> int:
    """Return the present number of columns of a stream's terminal, which may be resized."""
    try:
        return min(os.get_terminal_size(stream.fileno()).columns or _WIDTH, _WIDEST)
    except (OSError, ValueError):
        return _WIDTH


def coloured(text: str, colour: str) -> str:
    """Return a text in bold and a colour, unless the user or the terminal wants none."""
    if os.environ.get("NO_COLOR") or is_plain_terminal():
        return text
    return f"\x1b[1;{_CODES[colour]}m{text}\x1b[0m"


def wrapped(text: str, width: Callable[[], int]) -> str:
    """Return a foreign text with line breaks, ready to be shown."""
    wrapping = WordWrap(width)
    return wrapping.push(printable(text)) + wrapping.finish()


@dataclass(frozen=True)
class Screen:
    """Both streams of a chat. ``is_quiet`` leaves out notes on replies."""

    is_quiet: bool = False

    def tell(self, text: str) -> None:
        """Write lines to stderr, wrapped and without control sequences."""
        sys.stderr.write(wrapped(text, lambda: width_of(sys.stderr)) + "\n")
        sys.stderr.flush()

    def note(self, text: str) -> None:
        """Write a note in brackets to stderr."""
        self.tell(f"[{text}]")

    def recall(self, label: str, colour: str, text: str) -> None:
        """Write the beginning of an earlier turn to stderr, after its label."""
        label = f"{printable(label)}: "
        wrapping = WordWrap(lambda: width_of(sys.stderr), column=text_width(label))
        is_long = len(text) > _RECALLED
        text = printable(text[:_RECALLED].rstrip() + "…" if is_long else text)
        shown = coloured(label, colour) if sys.stderr.isatty() else label
        sys.stderr.write(f"{shown}{wrapping.push(text)}{wrapping.finish()}\n")
        sys.stderr.flush()

    def stream(self, label: str, colour: str) -> ReplyStream:
        """Show the label of a reply; return the stream for its text."""
        return ReplyStream(label, colour)


class ReplyStream:
    """A reply as it arrives: wrapped on a terminal, one line of text elsewhere."""

    def __init__(self, label: str, colour: str) -> None:
        self._printable = PrintableStream()
        self._wrapping = None
        self._has_begun = False
        if sys.stdout.isatty():
            label = f"{printable(label)}: "
            self._wrapping = WordWrap(lambda: width_of(sys.stdout), column=text_width(label))
            _write(coloured(label, colour))

    def push(self, piece: str) -> None:
        """Show the words that are complete; TerminalClosedError if the terminal was closed."""
        self._show(self._printable.push(piece))

    def finish(self) -> None:
        """Show the rest and end the line."""
        self._show(self._printable.finish())
        _write((self._wrapping.finish() if self._wrapping else "") + "\n")

    def _show(self, text: str) -> None:
        if not self._has_begun:  # the conversation holds no white space at the ends
            text = text.lstrip()
            self._has_begun = bool(text)
        _write(self._wrapping.push(text) if self._wrapping else text.replace("\n", " "))


def text_width(text: str) -> int:
    """Return the columns of a line."""
    return sum(map(columns, text))


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # `convo chat … | head`, which the error boundary knows
        raise
    except OSError as error:
        if sys.stdout.isatty() or not sys.stdin.isatty():
            raise
        raise TerminalClosedError from error
