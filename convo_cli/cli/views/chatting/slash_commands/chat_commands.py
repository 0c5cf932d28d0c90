"""Commands of a chat: the table behind help, completion and suggestions."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convo_cli.chat.session_values import KEYS
from convo_cli.cli.views.chatting.chat_screen import width_of
from convo_cli.cli.views.chatting.slash_commands import actions
from convo_cli.cli.views.chatting.slash_commands.session_commands import load, save
from convo_cli.errors import UsageError
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completion

    from convo_cli.cli.views.chatting.chat_loop import Chat, Talker

_KEYS = (
    ("//text", "sends a message that begins with a slash: /text"),
    ('"""', "begins and ends a text of several lines"),
    ("Alt-Enter", "starts a new line"),
    ("Ctrl-X Ctrl-E", "opens $VISUAL or $EDITOR"),
    ("Ctrl-R, Up", "searches or shows earlier messages"),
    ("Tab", "completes commands, settings and files"),
    ("Ctrl-C", "stops a reply; the part that is shown is kept"),
    ("Ctrl-D", "leaves"),
)
_NARROW = 72  # columns that the longest line of the help takes


@dataclass(frozen=True)
class Command:
    """A command: what follows its name, what it does, and the function that does it."""

    name: str
    arguments: str
    help: str
    run: Callable[[Chat, str], None]
    """Receives the text after the name. Its errors are shown and do not end the chat."""

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.arguments}".rstrip()


def _show_help(chat: Chat, text: str) -> None:
    actions.require_nothing(text)
    rows = [*((command.usage, command.help) for command in COMMANDS), *_KEYS]
    size = max(len(name) for name, _ in rows) + 2
    is_narrow = width_of(sys.stderr) < _NARROW
    lines = (
        f"{name}\n  {effect}" if is_narrow else f"{name:<{size}}{effect}" for name, effect in rows
    )
    chat.screen.tell("\n".join(lines))
    if len(chat.talkers) > 1:
        labels = " or ".join(talker.label for talker in chat.talkers)
        chat.screen.tell(f"A command is for all models, or for the one named first: {labels}.")


def _quit(chat: Chat, text: str) -> None:
    actions.require_nothing(text)
    chat.is_over = True


COMMANDS = (
    Command("help", "", "shows this list", _show_help),
    Command("system", "[TEXT|-]", "shows or sets the system text; - removes it", actions.system),
    Command("set", "[KEY [VALUE]]", "shows or changes how replies are sampled", actions.set_value),
    Command("reset", "", "starts a new conversation", actions.reset),
    Command("show", "[N]", "shows the conversation, from reply N on", actions.show),
    Command("undo", "", "removes the last message and its reply", actions.undo),
    Command("retry", "[N]", "asks for another reply, or for N to choose from", actions.retry),
    Command("edit", "[N]", "changes the text of reply N, or of the last one", actions.edit),
    Command(
        "save",
        "[FILE]",
        "writes the conversation as a line of training data",
        save,
    ),
    Command("load", "[FILE]", "opens a saved conversation", load),
    Command("tokens", "", "shows the tokens of the last reply, and its speed", actions.tokens),
    Command("good", "", "marks the last reply as one to train on", actions.good),
    Command("bad", "", "marks the last reply as one not to train on", actions.bad),
    Command("quit", "", "leaves", _quit),
)
_OTHER_NAMES = {"exit": "quit", "?": "help", "clear": "reset", "regenerate": "retry"}
_BY_NAME = {command.name: command for command in COMMANDS}


def run_command(chat: Chat, line: str) -> None:
    """Run the command in a line that begins with a slash."""
    words = line[1:].split(maxsplit=1)
    name, text = words[0] if words else "", words[1] if len(words) > 1 else ""
    command = _BY_NAME.get(_OTHER_NAMES.get(name.lower(), name.lower()))
    if command is None:
        names = [*_BY_NAME, *_OTHER_NAMES]
        close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
        advice = f"did you mean /{close[0]}?" if close else "/help lists the commands"
        raise UsageError(f"there is no command {quoted('/' + name)}: {advice}", hint=_SLASH)
    try:
        command.run(chat, text.strip())
    except actions.WrongArgumentsError as error:
        raise UsageError(f"{error.message}: {command.usage}") from None


_SLASH = "// begins a message with a slash"


def completions(text: str, talkers: Sequence[Talker]) -> Iterator[Completion]:
    """Yield what can follow a text at the prompt: commands, keys and values, labels, files."""
    if not text.startswith("/") or text.startswith("//") or "\n" in text:
        return
    name, space, rest = text[1:].partition(" ")
    if not space:
        yield from _words(name, (f"{command.name}" for command in COMMANDS))
    elif name == "set":
        key, space, value = rest.partition(" ")
        if not space:
            yield from _words(key, KEYS)
        elif key in KEYS:
            yield from _words(value, actions.values_of(talkers, key))
    elif name in ("save", "load"):
        yield from _files(rest)
    elif len(talkers) > 1:
        yield from _words(rest, (talker.label for talker in talkers))


def _words(begun: str, words: Iterable[str]) -> Iterator[Completion]:
    from prompt_toolkit.completion import Completion

    for word in words:
        if word.startswith(begun):
            yield Completion(word, start_position=-len(begun))


def _files(begun: str) -> Iterator[Completion]:
    from prompt_toolkit.completion import CompleteEvent, PathCompleter
    from prompt_toolkit.document import Document

    document = Document(begun, len(begun))
    yield from PathCompleter(expanduser=True).get_completions(document, CompleteEvent())
