"""Texts from a terminal without control sequences, by the terminal's own line editing."""

from __future__ import annotations

import sys

from convo_cli.cli.views.chatting.chat_screen import Screen
from convo_cli.cli.views.chatting.prompts.editing import is_open
from convo_cli.cli.views.chatting.prompts.typed_ahead import CtrlC, Keyboard

_MAX_BYTES = 2**20  # of one text


class TypedLines:
    """Reads a line, or several lines between triple quotes."""

    def __init__(self, screen: Screen, keyboard: Keyboard, ctrl_c: CtrlC) -> None:
        self._screen = screen
        self._keyboard = keyboard
        self._ctrl_c = ctrl_c

    def read(self, label: str, default: str | None = None) -> str:
        """Return the next text; EOFError at the end of the input.

        A ``default`` is shown, and returned if nothing is typed.
        """
        if default:
            self._screen.tell(f"{default}\n[Enter keeps it]")
        sys.stderr.write(label)
        sys.stderr.flush()
        with self._keyboard.shown(), self._ctrl_c.stopping():
            text = self._line()
            while is_open(text):
                text += "\n" + self._line()
        return text if text or default is None else default

    def _line(self) -> str:
        raw = sys.stdin.buffer.readline(_MAX_BYTES)
        if not raw:
            raise EOFError
        return raw.decode("utf-8", "replace").rstrip("\r\n")
