"""The loop of a chat: read a message, stream the reply of each model, save the conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from convo_cli.chat.saved_sessions import SessionFile
from convo_cli.chat.session import ChatSession
from convo_cli.cli.views.chatting.chat_screen import USER, Screen, TerminalClosedError
from convo_cli.cli.views.chatting.prompts.editing import unquoted
from convo_cli.cli.views.chatting.prompts.typed_ahead import CtrlC
from convo_cli.cli.views.chatting.reply_notes import note_on
from convo_cli.errors import ConvoError, StoppedError
from convo_cli.interrupts import Interrupt
from convo_cli.model.decoding.generator import Reply


class LineReader(Protocol):
    """Reads a text from the user; raises KeyboardInterrupt for Ctrl-C, EOFError for Ctrl-D."""

    def read(self, label: str, default: str | None = None) -> str: ...


@dataclass
class Talker:
    """A model in the chat, with its conversation."""

    label: str
    colour: str
    session: ChatSession
    file: SessionFile
    """The file in which the conversation is saved."""

    def start_over(self) -> None:
        """Begin a new conversation in a new file; the old one stays saved."""
        self.session.reset()
        self.file.close()
        self.file = SessionFile.new(self.session.contract)


class Chat:
    """A chat of the user with one or several models, each of which reads only its own replies."""

    def __init__(
        self,
        talkers: Sequence[Talker],
        screen: Screen,
        reader: LineReader,
        ctrl_c: CtrlC,
        run_command: Callable[[Chat, str], None],
    ) -> None:
        """``run_command`` runs a line that begins with a slash."""
        self.talkers = talkers
        self.screen = screen
        self.reader = reader
        self.is_over = False
        self._ctrl_c = ctrl_c
        self._run_command = run_command

    def run(self) -> None:
        """Answer messages and run commands until the user leaves; errors do not end the chat."""
        was_interrupted = False
        while not self.is_over:
            try:
                text = self.reader.read("you: ")
            except Interrupt:  # SIGTERM or SIGHUP
                raise
            except KeyboardInterrupt:
                if was_interrupted:
                    return
                was_interrupted = True
                self.screen.note("press Ctrl-C again or Ctrl-D to leave")
                continue
            except EOFError:
                return
            was_interrupted = False
            self._take(text)
            self.save()

    def _take(self, text: str) -> None:
        """Run a command, or answer a message."""
        line = text.strip()
        if line.startswith("//"):
            self._answer(line.removeprefix("/"))
        elif line.startswith("/"):
            with self.showing_errors():
                self._run_command(self, line)
        elif message := unquoted(text).strip():
            self._answer(message)

    def _answer(self, message: str) -> None:
        for talker in self.talkers:
            if not self.stream(talker, talker.label, talker.session.say, message):
                break

    def stream(
        self,
        talker: Talker,
        label: str,
        ask: Callable[..., Reply],
        *arguments: str,
    ) -> bool:
        """Show a reply as it arrives; return False if the user stopped it.

        ``ask`` gets the arguments and a function for pieces of text.
        """
        shown = self.screen.stream(label, talker.colour)
        before = _num_replies(talker.session)
        try:
            with self._ctrl_c.stopping():
                reply = ask(*arguments, shown.push)
        except TerminalClosedError:
            raise
        except KeyboardInterrupt as stop:
            shown.finish()
            if isinstance(stop, Interrupt):
                raise
            is_kept = _num_replies(talker.session) != before
            kept = "the part that is shown is kept" if is_kept else "the message is not kept"
            self.screen.note(f"stopped; {kept}")
            return False
        except ConvoError as error:
            shown.finish()
            self.report(error)
            return not isinstance(error, StoppedError)
        shown.finish()
        if (note := note_on(reply)) and not self.screen.is_quiet:
            self.screen.note(note)
        return True

    def show_last(self, talker: Talker) -> None:
        """Show the last exchange of a continued conversation, as a reminder."""
        self.show_from(talker, len(talker.session.exchanges))

    def show_from(self, talker: Talker, first: int) -> None:
        """Show the exchanges from this number on; each reply has its number and its mark."""
        for number, exchange in enumerate(talker.session.exchanges, 1):
            if number >= first:
                reply = exchange.chosen_reply
                mark = {True: ", good", False: ", bad", None: ""}[reply.is_good]
                self.screen.recall("you", USER, exchange.message)
                label = f"{talker.label} ({number}{mark})"
                self.screen.recall(label, talker.colour, reply.text)

    def save(self) -> None:
        """Save each session; warn the first time that this fails."""
        for talker in self.talkers:
            if warning := talker.file.save(talker.session):
                self.screen.tell(f"warning: {warning}")

    def ask(self, question: str, default: str | None = None) -> str | None:
        """Ask the user something; None for Ctrl-C or Ctrl-D."""
        try:
            return self.reader.read(question, default)
        except Interrupt:
            raise
        except (KeyboardInterrupt, EOFError):
            return None

    @contextmanager
    def showing_errors(self, label: str = "") -> Iterator[None]:
        """Show an error that the block raises, so that it does not end the chat."""
        try:
            yield
        except StoppedError:
            raise
        except ConvoError as error:
            self.report(error, label)

    def report(self, error: ConvoError, label: str = "") -> None:
        prefix = f"{label}: " if label else ""
        self.screen.note(f"{prefix}{error.message}" + (f"; {error.hint}" if error.hint else ""))


def _num_replies(session: ChatSession) -> tuple[int, int]:
    return len(session.exchanges), len(session.alternatives)
