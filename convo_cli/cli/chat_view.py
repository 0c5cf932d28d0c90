"""The conversation on a terminal (line editing, history, commands) or through a pipe (one line in, one reply out)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from convo_cli.chat.session import ChatSession
from convo_cli.cli.console import print_json, printable
from convo_cli.errors import ConvoError, DataError
from convo_cli.model.generation import Reply

_HELP = "/reset forgets the conversation, /quit leaves (also Ctrl-D), Ctrl-C stops a reply, Alt-Enter starts a new line"


def hold_conversation(session: ChatSession, *, as_json: bool, is_quiet: bool) -> None:
    """Talk until the input ends. Replies go to stdout; with ``as_json`` one object with all turns, at the end."""
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    lines = _terminal_lines() if is_terminal else _piped_lines()
    if is_terminal and not is_quiet:
        sys.stderr.write(_HELP + "\n")
    for line in lines:
        command = line.strip()
        if not command:
            continue
        if is_terminal and command.startswith("/"):
            if command in ("/quit", "/exit"):
                break
            if command == "/reset":
                session.reset()
            sys.stderr.write("forgotten\n" if command == "/reset" else _HELP + "\n")
            continue
        _answer(session, line, is_terminal=is_terminal, show=(lambda text: None) if as_json else _write)
        if not as_json:
            _write("\n")
    if as_json:
        turns = [{"role": turn.role, "content": turn.text} for turn in session.turns]
        print_json("chat", {"messages": turns})


def _answer(session: ChatSession, line: str, *, is_terminal: bool, show: Callable[[str], None]) -> None:
    try:
        reply = session.say(line, lambda text: show(printable(text)))
    except KeyboardInterrupt:
        if not is_terminal:
            raise
        sys.stderr.write(" (stopped; this exchange is forgotten)")
        return
    except DataError as error:
        if not is_terminal:
            raise
        sys.stderr.write(printable(_one_line(error)))
        return
    if note := _note(reply):
        sys.stderr.write(f"\n[{note}]" if is_terminal else f"note: {note}\n")


def _note(reply: Reply) -> str:
    notes = []
    if reply.num_dropped:
        notes.append(f"the first {reply.num_dropped} turns no longer fit the model's window")
    if not reply.stopped:
        notes.append(f"cut at {len(reply.ids)} tokens")
    return "; ".join(notes)


def _terminal_lines() -> Iterator[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    bindings = KeyBindings()

    @bindings.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    prompt: PromptSession[str] = PromptSession(key_bindings=bindings)
    while True:
        try:
            yield prompt.prompt("> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def _piped_lines() -> Iterator[str]:
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"<stdin>:{number}: not UTF-8 ({error.reason})") from error


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _one_line(error: ConvoError) -> str:
    return f"error: {error.message}" + (f" ({error.hint})" if error.hint else "")
