"""Conversation through a pipe: one reply on stdout for each line of stdin."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator

from convo_cli.chat.session import ChatSession
from convo_cli.cli.console import PrintableStream, print_json
from convo_cli.cli.views.chatting.reply_notes import note_on
from convo_cli.errors import DataError

_MAX_LINE_BYTES = 2**20  # of stdin: far above any model's window, far below any machine's memory


def answer_lines(session: ChatSession, *, as_json: bool, is_quiet: bool) -> None:
    """Answer each line of stdin; with ``as_json``, write one object with all turns at the end."""
    for number, line in _piped_lines():
        _answer_line(session, number, line, show=_ignore if as_json else _write, is_quiet=is_quiet)
    if as_json:
        turns = [{"role": turn.role, "content": turn.text} for turn in session.turns]
        loaded = session.generator.loaded
        checkpoint = None if loaded is None else loaded.as_record()
        print_json("chat", {"checkpoint": checkpoint, "messages": turns})


def _answer_line(
    session: ChatSession, number: int, line: str, *, show: Callable[[str], None], is_quiet: bool
) -> None:
    """Answer a line of input with one line; line breaks in the reply become spaces."""
    shown = PrintableStream()
    try:
        reply = session.say(line, lambda text: show(shown.push(text).replace("\n", " ")))
    except DataError as error:
        raise DataError(f"<stdin>:{number}: {error.message}", hint=error.hint) from None
    show(shown.finish().replace("\n", " ") + "\n")
    if (note := note_on(reply)) and not is_quiet:
        sys.stderr.write(f"note: line {number}: {note}\n")


def _piped_lines() -> Iterator[tuple[int, str]]:
    """Yield number and text of every non-blank line of stdin."""
    for number in itertools.count(1):
        raw = sys.stdin.buffer.readline(_MAX_LINE_BYTES + 1)
        if not raw:
            return
        if len(raw) > _MAX_LINE_BYTES:
            raise DataError(
                f"<stdin>:{number}: the line is longer than {_MAX_LINE_BYTES:,} bytes",
                hint="write one message per line",
            )
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"<stdin>:{number}:{error.start + 1}: byte 0x{raw[error.start]:02X} is not UTF-8",
                hint="convert the text to UTF-8 first, for example with iconv",
            ) from None
        if line.strip():
            yield number, line


def _ignore(text: str) -> None:
    pass


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
