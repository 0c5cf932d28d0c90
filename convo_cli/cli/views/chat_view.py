"""View of a conversation: on a terminal (line editing, history, commands) or through a pipe (a
reply per line).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator

from convo_cli.chat.session import ChatSession
from convo_cli.cli.console import PrintableStream, print_json, printable
from convo_cli.errors import DataError
from convo_cli.model.generation import Reply

_HELP = "/reset forgets what was said, /quit leaves, Ctrl-C stops a reply, Alt-Enter breaks a line"
_MAX_LINE_BYTES = 2**20  # of stdin: far above any model's window, far below any machine's memory


def hold_conversation(session: ChatSession, *, as_json: bool, is_quiet: bool) -> None:
    """Talk until the input ends. Replies go to stdout; with ``as_json``, one object with all turns
    at the end.
    """
    if sys.stdin.isatty() and sys.stdout.isatty() and not as_json:
        _talk(session, is_quiet=is_quiet)
        return
    for number, line in _piped_lines():
        _answer_line(session, number, line, show=_ignore if as_json else _write, is_quiet=is_quiet)
    if as_json:
        turns = [{"role": turn.role, "content": turn.text} for turn in session.turns]
        print_json("chat", {"messages": turns})


def _talk(session: ChatSession, *, is_quiet: bool) -> None:
    """Hold a conversation on a terminal; an error or Ctrl-C ends the exchange, not the
    conversation.
    """
    if not is_quiet:
        sys.stderr.write(_HELP + "\n")
    for line in _typed_lines():
        command = line.strip()
        if command in ("/quit", "/exit"):
            return
        if command == "/reset":
            session.reset()
            sys.stderr.write("the conversation is forgotten\n")
        elif command.startswith("/"):
            sys.stderr.write(_HELP + "\n")
        elif command:
            _answer(session, line, is_quiet=is_quiet)


def _answer(session: ChatSession, line: str, *, is_quiet: bool) -> None:
    shown = PrintableStream()
    try:
        reply = session.say(line, lambda text: _write(shown.push(text)))
    except KeyboardInterrupt:
        _write("\n")
        sys.stderr.write("[stopped; this exchange is forgotten]\n")
    except DataError as error:
        sys.stderr.write(
            printable(f"[{error.message}" + (f"; {error.hint}" if error.hint else "")) + "]\n"
        )
    else:
        _write(shown.finish() + "\n")
        if (note := _note(reply)) and not is_quiet:
            sys.stderr.write(f"[{note}]\n")


def _answer_line(
    session: ChatSession, number: int, line: str, *, show: Callable[[str], None], is_quiet: bool
) -> None:
    """Answer an input line with one line; line breaks in the reply become spaces."""
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
        notes.append(f"no longer in the model's window: the first {turns}")
    if not reply.stopped:
        notes.append(f"cut at {len(reply.ids)} tokens")
    return "; ".join(notes)


def _typed_lines() -> Iterator[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    prompt: PromptSession[str] = PromptSession(key_bindings=bindings)
    while True:
        try:
            yield (
                prompt.prompt("> ").encode("utf-8", "replace").decode("utf-8")
            )  # pasted input may not be valid text
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def _piped_lines() -> Iterator[tuple[int, str]]:
    """Yield number and text of every non-blank line of stdin."""
    for number in itertools.count(1):
        raw = sys.stdin.buffer.readline(_MAX_LINE_BYTES + 1)
        if not raw:
            return
        if len(raw) > _MAX_LINE_BYTES:
            raise DataError(
                f"<stdin>:{number}: over {_MAX_LINE_BYTES:,} bytes", hint="one message a line"
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
