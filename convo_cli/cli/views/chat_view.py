"""View of a conversation: on a terminal, or through a pipe with one reply for each line."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from convo_cli.chat.session import ChatSession
from convo_cli.cli.console import PrintableStream, print_json, printable
from convo_cli.errors import DataError
from convo_cli.interrupts import Interrupt
from convo_cli.model.decoding.generator import Reply
from convo_cli.signals import listening
from convo_cli.wording import counted

_HELP = "/reset starts over · /quit leaves · Ctrl-C stops a reply · Alt-Enter adds a line"
_MORE_HELP = f"{_HELP}\n//text sends /text"
_MAX_LINE_BYTES = 2**20  # of stdin: far above any model's window, far below any machine's memory


def hold_conversation(
    session: ChatSession, *, banner: str = "", as_json: bool, is_quiet: bool
) -> None:
    """Talk until the input ends. Replies go to stdout.

    ``banner`` describes model and settings on a terminal. With ``as_json``, one object with all
    turns is written at the end.
    """
    if sys.stdin.isatty() and sys.stdout.isatty() and not as_json:
        with listening() as stop, stop.without_ctrl_c():
            _talk(session, banner, is_quiet=is_quiet)
        return
    for number, line in _piped_lines():
        _answer_line(session, number, line, show=_ignore if as_json else _write, is_quiet=is_quiet)
    if as_json:
        turns = [{"role": turn.role, "content": turn.text} for turn in session.turns]
        loaded = session.generator.loaded
        checkpoint = None if loaded is None else loaded.as_record()
        print_json("chat", {"checkpoint": checkpoint, "messages": turns})


def _talk(session: ChatSession, banner: str, *, is_quiet: bool) -> None:
    """Hold a conversation; an error or Ctrl-C ends an exchange, not the conversation."""
    if not is_quiet:
        sys.stderr.write(f"{printable(banner)}\n{_HELP}\n")
    for line in _typed_lines():
        command = line.strip()
        if command in ("/quit", "/exit"):
            return
        if command == "/reset":
            session.reset()
            sys.stderr.write("[the conversation starts over]\n")
        elif command.startswith("/") and not command.startswith("//"):
            sys.stderr.write(_MORE_HELP + "\n")
        elif command:
            message = command.removeprefix("/") if command.startswith("//") else line
            _answer(session, message, is_quiet=is_quiet)


def _answer(session: ChatSession, line: str, *, is_quiet: bool) -> None:
    shown = PrintableStream()
    num_turns = len(session.turns)
    _write(_coloured("model: ", 35))
    try:
        with _without_echo():
            reply = session.say(line, lambda text: _write(shown.push(text)))
    except Interrupt:  # SIGTERM ends the conversation
        _write("\n")
        raise
    except KeyboardInterrupt:
        _write(shown.finish() + "\n")
        is_kept = len(session.turns) > num_turns
        fate = "the reply is kept as far as it is shown" if is_kept else "your message is not kept"
        sys.stderr.write(f"[stopped; {fate}]\n")
    except DataError as error:
        _write("\n")
        sys.stderr.write(
            printable(f"[{error.message}" + (f"; {error.hint}" if error.hint else "")) + "]\n"
        )
    else:
        _write(shown.finish() + "\n")
        if (note := _note(reply)) and not is_quiet:
            sys.stderr.write(f"[{note}]\n")


def _coloured(text: str, colour: int) -> str:
    """Return a label in bold and a colour for the terminal, unless NO_COLOR is set."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "dumb"):
        return text
    return f"\x1b[1;{colour}m{text}\x1b[0m"


@contextmanager
def _without_echo() -> Iterator[None]:
    """Keep the terminal from echoing into a reply what the user types ahead; it is read later."""
    try:
        import termios
    except ImportError:  # Windows, where the console does not echo between prompts
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    silent = termios.tcgetattr(sys.stdin)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


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
    if (note := _note(reply)) and not is_quiet:
        sys.stderr.write(f"note: line {number}: {note}\n")


def _note(reply: Reply) -> str:
    notes = []
    if reply.num_dropped:
        turns = "turn" if reply.num_dropped == 1 else f"{reply.num_dropped} turns"
        notes.append(f"the model no longer sees the first {turns}")
    if not reply.stopped:
        notes.append(f"cut at {counted(len(reply.ids), 'token')}")
    return "; ".join(notes)


def _typed_lines() -> Iterator[str]:
    """Yield what the user types, until Ctrl-D, or Ctrl-C twice in a row."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    prompt: PromptSession[str] = PromptSession(key_bindings=bindings)
    was_interrupted = False
    while True:
        try:
            line = prompt.prompt([("bold ansicyan", "you: ")])
        except Interrupt:
            raise
        except KeyboardInterrupt:
            if was_interrupted:
                return
            was_interrupted = True
            sys.stderr.write("[press Ctrl-C again or Ctrl-D to leave]\n")
            continue
        except EOFError:
            return
        was_interrupted = False
        yield line.encode("utf-8", "replace").decode("utf-8")  # pasted input may be invalid text


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
