"""A terminal for tests: a pseudo-terminal whose other end shows a screen and types keys."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyte

from convo_cli.chat.saved_sessions import SessionFile
from convo_cli.chat.session import ChatSession
from convo_cli.cli.views.chatting.terminal import talk
from convo_cli.config.schema import GenerationSettings
from convo_cli.model.decoding.generator import Reply
from tests.commands import environment
from tests.forks import start_fork

_SEQUENCE = re.compile(rb"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[=>78]")
_SECONDS = 20.0


class Terminal:
    """A screen with this width; ``far_end`` is the descriptor for the streams of a program."""

    def __init__(self, columns: int = 80, lines: int = 24) -> None:
        self.main_end, self.far_end = pty.openpty()
        self.columns, self.lines = columns, lines
        self._resize()
        self._screen = _Screen(columns, lines, history=100_000)
        self._screen.main_end = self.main_end
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self.is_over = False
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
                is_late = self.is_over or time.monotonic() > deadline
                assert not is_late, f"no {text!r} in:\n{self.text}"
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


class Speaker:
    """A generator that replies with the given pieces of text, whatever it is asked."""

    def __init__(self, encoder: Any, *pieces: str, on_piece: Callable[[str], object] = str) -> None:
        self.encoder = encoder
        self.pieces: Sequence[str] = pieces
        self.model = SimpleNamespace(device="cpu")
        self.loaded = self.folder = None
        self._on_piece = on_piece
        self.histories: list[list[str]] = []

    @property
    def heard(self) -> list[str]:
        """The last message of each history."""
        return [history[-1] for history in self.histories]

    def stream(self, history, settings, on_text=str, *, seed=None, index=0) -> Reply:
        self.histories.append([turn.text for turn in history])
        for piece in self.pieces:
            on_text(piece)
            self._on_piece(piece)
        return Reply("".join(self.pieces), (1, 2), True, 0)


def chat_here(
    speakers: Mapping[str, Speaker], drive: Callable[[Terminal], None], columns: int = 80
) -> Terminal:
    """Hold a chat in this process, which gets SIGINT for Ctrl-C; ``drive`` runs in a thread.

    The chat ends with the input, after ``drive`` has typed what it wants.
    """
    from prompt_toolkit.application import create_app_session

    terminal, failures = Terminal(columns), list[BaseException]()

    def drive_to_the_end() -> None:
        try:
            terminal.wait_for("you: ")
            drive(terminal)
            terminal.type("\x04")
            while not terminal.is_over:
                terminal.read(0.1)
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            failures.append(error)
            terminal.type("\x03\x04\x04")

    conversations = [
        (
            session := ChatSession(cast(Any, one), GenerationSettings()),
            SessionFile.new(session.contract),
        )
        for one in speakers.values()
    ]
    thread = threading.Thread(target=drive_to_the_end)
    with _streams_on(terminal.far_end), create_app_session():
        thread.start()
        try:
            talk(list(speakers), conversations, is_quiet=False)
        finally:
            terminal.is_over = True
            thread.join()
    if failures:
        raise failures[0]
    return terminal


@contextmanager
def _streams_on(descriptor: int) -> Iterator[None]:
    before = sys.stdin, sys.stdout, sys.stderr
    with (
        open(descriptor, encoding="utf-8", closefd=False) as sys.stdin,
        open(descriptor, "w", encoding="utf-8", closefd=False, buffering=1) as sys.stdout,
        open(descriptor, "w", encoding="utf-8", closefd=False, buffering=1) as sys.stderr,
    ):
        try:
            yield
        finally:
            sys.stdin, sys.stdout, sys.stderr = before
