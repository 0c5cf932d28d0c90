"""A terminal for tests: a pseudo-terminal whose other end shows a screen and types keys."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte

from tests.commands import environment
from tests.forks import start_fork

_SEQUENCE = re.compile(rb"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[=>78]")
_SECONDS = 60.0


class Terminal:
    """A screen of so many columns; ``far_end`` is the descriptor for a program's streams."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.main_end, self.far_end = pty.openpty()
        self.columns, self.lines = columns, lines
        self._resize()
        self._screen = _Screen(columns, lines, history=100_000)
        self._screen.main_end = self.main_end
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self._num_seen = 0
        """Bytes before the last text that was waited for."""

    def type(self, keys: str | bytes) -> None:
        data = keys.encode() if isinstance(keys, str) else keys
        while data:  # a pseudo-terminal takes 4096 bytes at a time
            data = data[os.write(self.main_end, data[:1024]) :]
            self.read(0)

    def resize(self, columns: int) -> None:
        self.columns = columns
        self._screen.resize(self.lines, columns)
        self._resize()

    def _resize(self) -> None:
        size = struct.pack("HHHH", self.lines, self.columns, 0, 0)
        fcntl.ioctl(self.main_end, termios.TIOCSWINSZ, size)

    def read(self, seconds: float) -> bool:
        """Show what arrives within a time; return False at the end of the output."""
        while select.select([self.main_end], [], [], seconds)[0]:
            try:
                data = os.read(self.main_end, 65536)
            except OSError:
                return False
            if not data:
                return False
            self.raw += data
            self._stream.feed(data)
            seconds = 0
        return True

    def wait_for(self, *texts: str) -> None:
        """Wait until the program has written these texts, one after the other."""
        for text in texts:
            deadline = time.monotonic() + _SECONDS
            while (found := self._find(text)) is None:
                assert time.monotonic() < deadline, f"no {text!r} in:\n{self.text}"
                assert self.read(0.5), f"the program ended without {text!r}:\n{self.text}"
            self._num_seen = found

    def _find(self, text: str) -> int | None:
        plain = _SEQUENCE.sub(lambda found: b"\0" * len(found[0]), self.raw[self._num_seen :])
        pattern = b"\0*".join(re.escape(char.encode()) for char in text)
        found = re.search(pattern, plain)
        return self._num_seen + found.end() if found else None

    @property
    def text(self) -> str:
        """All that was shown, with the lines that left the screen."""
        above = [_text_of(line, self.columns) for line in self._screen.history.top]
        return "\n".join([*above, *(line.rstrip() for line in self._screen.display)]).rstrip()

    @property
    def is_normal(self) -> bool:
        """Whether the terminal shows keys and collects lines, as in a shell."""
        modes = termios.tcgetattr(self.main_end)
        return bool(
            modes[3] & termios.ECHO
            and modes[3] & termios.ICANON
            and modes[3] & termios.ISIG
            and modes[0] & termios.ICRNL
            and not modes[3] & termios.NOFLSH
        )

    def close(self) -> None:
        for end in (self.main_end, self.far_end):
            if end >= 0:
                os.close(end)
        self.main_end = self.far_end = -1


class _Screen(pyte.HistoryScreen):
    main_end: int

    def write_process_input(self, data: str) -> None:
        os.write(self.main_end, data.encode())  # the position of the cursor

    def set_title(self, param: str) -> None:
        raise AssertionError("the title of the terminal was changed")


def _text_of(line: Any, columns: int) -> str:
    return "".join(line[column].data for column in range(columns)).rstrip()


class Program(Terminal):
    """A terminal in which a convo command runs as its leader."""

    process: subprocess.Popen[bytes]


@contextmanager
def convo_on_terminal(
    folder: Path, *arguments: object, columns: int = 80, **variables: str
) -> Iterator[Program]:
    """Run a command on a terminal of its own, in a fork that is killed at the end."""
    program = Program(columns)
    variables = {"TERM": "xterm-256color", "NO_COLOR": "", **variables}
    env = environment(**variables)
    program.process = start_fork(
        folder, *arguments, env={key: value for key, value in env.items() if key != "COLUMNS"},
        stdin=program.far_end, stdout=program.far_end, stderr=program.far_end,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait(60)
        program.close()
