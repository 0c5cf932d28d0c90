"""View of a conversation on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from convo_cli.chat.session import ChatSession
from convo_cli.cli.console import PrintableStream, printable
from convo_cli.cli.views.chatting.piped import answer_lines
from convo_cli.cli.views.chatting.reply_notes import note_on
from convo_cli.errors import DataError
from convo_cli.interrupts import Interrupt
from convo_cli.signals import listening

_HELP = "/reset starts over · /quit leaves · Ctrl-C stops a reply · Alt-Enter adds a line"
_MORE_HELP = f"{_HELP}\n//text sends /text"


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
    answer_lines(session, as_json=as_json, is_quiet=is_quiet)


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
        if (note := note_on(reply)) and not is_quiet:
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


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
