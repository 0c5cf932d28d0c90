"""Line editing at a prompt: history, completion, several lines, and an editor of the user's choice.

prompt_toolkit is imported in the functions, because a chat through a pipe does not need it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from convo_cli.cli.console import printable
from convo_cli.cli.views.chatting.chat_screen import USER, Screen, text_width, width_of
from convo_cli.cli.views.chatting.prompts.external_editor import edited
from convo_cli.cli.views.chatting.prompts.prompt_history import HistoryFile, history_path
from convo_cli.errors import UsageError
from convo_cli.unseen import UNSEEN

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

QUOTES = '"""'
"""Begins and ends a text of several lines."""
_UNSEEN, _MARK = re.compile(f"[{UNSEEN}]"), "�"
_OPENED = re.compile(rf"\s*(/\w+\s+)?{QUOTES}")


def is_open(text: str) -> bool:
    """Return whether a text, or the text after a command, has quotes that are not closed yet."""
    opened = _OPENED.match(text)
    return opened is not None and not text[opened.end() :].rstrip().endswith(QUOTES)


def unquoted(text: str) -> str:
    """Return a text without the quotes around it."""
    inner = text.strip()
    if not inner.startswith(QUOTES):
        return text
    return inner.removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")


class LineEditor:
    """Reads texts with the line editor of prompt_toolkit."""

    is_raw = True

    def __init__(self, screen: Screen, completions: Callable[[str], Iterator[Completion]]) -> None:
        from prompt_toolkit.shortcuts import CompleteStyle

        self._screen = screen
        self._messages = _prompt_session(
            key_bindings=_bindings(screen),
            history=_history(),
            completer=_completer(completions),
            complete_style=CompleteStyle.READLINE_LIKE,
        )
        self._others = _prompt_session(key_bindings=_bindings(screen))

    def read(self, label: str, default: str | None = None) -> str:
        """Return the next text; EOFError at the end of the input.

        A ``default`` is shown to be edited; its text does not enter the history.
        """
        session = self._messages if default is None else self._others
        if text_width(label) * 3 > width_of(sys.stderr) * 2:  # too little room beside it
            self._screen.tell(label.rstrip())
            label = "> "
        text = session.prompt([(f"bold ansi{USER}", label)], default=default or "")
        return text.encode("utf-8", "replace").decode("utf-8")  # pasted input may be invalid text


def _prompt_session(**options: Any) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output import create_output

    output = create_output(always_prefer_tty=True)
    if hasattr(output, "enable_cpr"):
        # The position of the cursor is not needed here, and a slow terminal may send it so late
        # that it is read as typed keys.
        output.enable_cpr = False
    return PromptSession(
        multiline=True, complete_while_typing=False, enable_suspend=True,
        output=output, input_processors=[_visible()], **options,
    )  # fmt: skip


def _visible() -> Any:
    """Show a mark in place of each unseen character; prompt_toolkit does so for control characters.

    A pasted text may reorder or hide what is typed after it.
    """
    from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput

    class Visible(Processor):
        def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
            fragments = transformation_input.fragments
            return Transformation([(one[0], _UNSEEN.sub(_MARK, one[1])) for one in fragments])

    return Visible()


def _history() -> Any:
    from prompt_toolkit.history import History

    file = HistoryFile(history_path())

    class Entries(History):
        def load_history_strings(self) -> Iterable[str]:
            return reversed(file.load())

        def store_string(self, string: str) -> None:
            file.add(string)

    return Entries()


def _completer(completions: Callable[[str], Iterator[Completion]]) -> Any:
    from prompt_toolkit.completion import Completer

    class Words(Completer):
        def get_completions(
            self, document: Document, complete_event: CompleteEvent
        ) -> Iterator[Completion]:
            for found in completions(document.text_before_cursor):
                if found.text == printable(found.text):  # a file may have any name
                    yield found

    return Words()


def _bindings(screen: Screen) -> KeyBindings:
    from prompt_toolkit.application import run_in_terminal
    from prompt_toolkit.document import Document
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import has_focus
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.keys import Keys

    bindings = KeyBindings()
    is_typing = has_focus(DEFAULT_BUFFER)  # and not searching the history

    @bindings.add("escape", "enter", filter=is_typing)
    @bindings.add("escape", "c-j", filter=is_typing)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("enter", filter=is_typing)
    def _send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    # prompt_toolkit raises ValueError for some of these, such as "ESC [31m" in a pasted text.
    @bindings.add(Keys.Vt100MouseEvent, eager=True)
    @bindings.add(Keys.CPRResponse, eager=True)
    def _ignore(event: KeyPressEvent) -> None:
        pass

    @bindings.add("c-x", "c-e", filter=is_typing)
    def _edit(event: KeyPressEvent) -> None:
        async def edit() -> None:
            buffer = event.current_buffer
            try:
                text = await run_in_terminal(lambda: edited(buffer.text), in_executor=True)
            except (UsageError, OSError) as error:
                reason = str(error)
                await run_in_terminal(lambda: screen.note(reason))
            else:
                buffer.document = Document(text)

        event.app.create_background_task(edit())

    return bindings
