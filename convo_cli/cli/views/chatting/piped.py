"""Chat in a pipe: each line of stdin is a message, each line of stdout the reply to it.

With several models the line has a column for each, separated by tabs. A message that cannot be
answered has an empty line or column, so that the lines stay aligned.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from convo_cli.chat.conversation import ConversationFullError
from convo_cli.chat.session import ChatSession
from convo_cli.cli.console import PrintableStream, print_json, printable, show_error
from convo_cli.cli.views.chatting.piped_lines import piped_lines
from convo_cli.cli.views.chatting.reply_notes import note_on
from convo_cli.errors import DataError
from convo_cli.model.decoding.generator import Reply

_BREAKS = re.compile(r"[\n\t\x0b\x0c\r\x85\u2028\u2029]")


@dataclass(frozen=True)
class LineAnswer:
    """The reply to one line of stdin, or its error; the fields are those of `--json`."""

    line: int
    """Its number, from 1."""
    reply: str | None = None
    """The reply as the model gave it; None if there is none."""
    stop_reason: str | None = None
    """``stop``: the model ended it; ``length``: it was cut."""
    num_dropped_turns: int | None = None
    """Number of first turns that did not fit the window."""
    num_prompt_tokens: int | None = None
    num_reply_tokens: int | None = None
    error: str | None = None
    hint: str | None = None


@dataclass(frozen=True)
class _Speaker:
    """A model with its conversation and the results of the lines so far."""

    name: str
    session: ChatSession
    lines: list[LineAnswer] = field(default_factory=list)


def answer_lines(
    models: Sequence[str], sessions: Sequence[ChatSession], *, as_json: bool, is_quiet: bool
) -> bool:
    """Answer each line of stdin; return whether every model could answer every line.

    With ``as_json``, one object is written at the end instead of lines.
    """
    speakers = [_Speaker(*pair) for pair in zip(models, sessions, strict=True)]
    write = _ignore if as_json else _write
    is_full, is_all_answered = False, True
    for number, line in piped_lines():
        remarks: list[DataError | str] = [line] if isinstance(line, DataError) else []
        for column, speaker in enumerate(speakers):
            write("\t" if column else "")
            label = f"{speaker.name}: " if len(speakers) > 1 else ""
            try:
                if isinstance(line, DataError):
                    raise line
                reply = _answer(speaker.session, line, write)
            except DataError as error:
                is_all_answered = False
                is_full = is_full or isinstance(error, ConversationFullError)
                answer = LineAnswer(number, error=error.message, hint=error.hint)
                if error is not line:
                    remarks.append(DataError(f"{label}{error.message}", hint=error.hint))
            else:
                answer = _described(number, reply)
                if (note := note_on(reply)) and not is_quiet:
                    remarks.append(f"note: line {number}: {label}{note}\n")
            if as_json:  # an endless pipe must not fill the memory with answers
                speaker.lines.append(answer)
        write("\n")  # before the remarks, which may appear on the same terminal
        for remark in remarks:
            _show(remark, number)
        if is_full:  # no message fits any more
            break
    if as_json:
        records = [_record(speaker) for speaker in speakers]
        print_json("chat", records[0] if len(records) == 1 else {"models": records})
    return is_all_answered


def _answer(session: ChatSession, line: str, write: Callable[[str], None]) -> Reply:
    """Answer a line; line breaks and tabs in the reply become spaces."""
    shown = PrintableStream()
    try:
        return session.say(line, lambda text: write(_BREAKS.sub(" ", shown.push(text))))
    finally:
        write(_BREAKS.sub(" ", shown.finish()))


def _show(remark: DataError | str, number: int) -> None:
    """Show a note, or the error of one line, with its place unless the message already has it."""
    if isinstance(remark, str):
        sys.stderr.write(printable(remark))
        return
    place = "" if remark.message.startswith("<stdin>:") else f"<stdin>:{number}: "
    show_error(DataError(f"{place}{remark.message}", hint=remark.hint))


def _described(number: int, reply: Reply) -> LineAnswer:
    return LineAnswer(
        number,
        reply=reply.text,
        stop_reason="stop" if reply.stopped else "length",
        num_dropped_turns=reply.num_dropped,
        num_prompt_tokens=reply.trace.prompt_length if reply.trace else None,
        num_reply_tokens=len(reply.ids),
    )


def _record(speaker: _Speaker) -> dict[str, Any]:
    """Return the conversation of a model as in `--json`."""
    loaded = speaker.session.generator.loaded
    return {
        "model": speaker.name,
        "checkpoint": None if loaded is None else loaded.as_record(),
        "messages": [{"role": one.role, "content": one.text} for one in speaker.session.turns],
        "lines": [asdict(line) for line in speaker.lines],
    }


def _ignore(text: str) -> None:
    pass


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
