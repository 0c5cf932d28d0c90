"""Chat on a terminal: its parts, and what is restored and saved at its end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from convo_cli.chat.saved_sessions import SessionFile
from convo_cli.chat.session import ChatSession
from convo_cli.cli.streams import discard_output
from convo_cli.cli.views.chatting.banner import banner_of, labels_of
from convo_cli.cli.views.chatting.chat_loop import Chat, LineReader, Talker
from convo_cli.cli.views.chatting.chat_screen import (
    MODELS,
    Screen,
    TerminalClosedError,
    is_plain_terminal,
)
from convo_cli.cli.views.chatting.prompts.editing import LineEditor
from convo_cli.cli.views.chatting.prompts.typed_ahead import CtrlC, Keyboard
from convo_cli.cli.views.chatting.prompts.typed_lines import TypedLines
from convo_cli.cli.views.chatting.slash_commands.chat_commands import completions, run_command
from convo_cli.signals import listening


def talk(
    models: Sequence[str],
    conversations: Sequence[tuple[ChatSession, SessionFile]],
    *,
    is_quiet: bool,
) -> None:
    """Run a chat with these models until the user leaves."""
    labels = labels_of(models)
    talkers = [
        Talker(labels[number], MODELS[number % len(MODELS)], session, file)
        for number, (session, file) in enumerate(conversations)
    ]
    banners = [
        banner_of(model, talker.session.generator, talker.file.path)
        for model, talker in zip(models, talkers, strict=True)
    ]
    screen, ctrl_c = Screen(is_quiet), CtrlC()
    keyboard = Keyboard(is_raw=not is_plain_terminal())
    reader: LineReader
    if is_plain_terminal():
        reader = TypedLines(screen, keyboard, ctrl_c)
    else:
        reader = LineEditor(screen, lambda text: completions(text, talkers))
    chat = Chat(talkers, screen, reader, ctrl_c, run_command)
    with listening() as stop, stop.without_ctrl_c(), keyboard.silenced():
        signal.signal(signal.SIGINT, ctrl_c.handle)
        if not is_quiet:
            screen.tell("\n".join((*banners, "/help lists the commands; Ctrl-D leaves")))
            for talker in talkers:
                chat.show_last(talker)
        try:
            chat.run()
        except TerminalClosedError:
            pass
        finally:
            if not sys.stdin.isatty():  # it was closed, and nothing can be shown any more
                for stream in (sys.stdout, sys.stderr):
                    discard_output(stream.fileno())
            chat.save()  # a reply that a signal or the end of the terminal stopped
            for talker in talkers:
                talker.file.close()
        if not is_quiet and sys.stdin.isatty() and _can_continue(talkers):
            screen.note("the conversation is saved; start with --continue to continue it")


def _can_continue(talkers: Sequence[Talker]) -> bool:
    """Return whether --continue, which is for one model only, would find the conversation."""
    path = talkers[0].file.path
    return len(talkers) == 1 and path is not None and path.is_file()
