"""Functions of the commands of a chat.

A command is for all models of the chat; a label before its arguments selects one of them.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from convo_cli.chat.session_values import KEYS, SAMPLING_KEYS, range_of
from convo_cli.cli.views.chatting.chat_screen import width_of
from convo_cli.cli.views.chatting.prompts.editing import unquoted
from convo_cli.cli.views.chatting.token_table import token_lines
from convo_cli.errors import DataError, UsageError
from convo_cli.wording import quoted

if TYPE_CHECKING:
    from convo_cli.cli.views.chatting.chat_loop import Chat, Talker

_MOST_REPLIES = 9  # of one /retry


class WrongArgumentsError(UsageError):
    """The text after a command is not what it expects; the message ends with its usage."""


def require_nothing(text: str) -> None:
    """Raise WrongArgumentsError if there is text after a command without arguments."""
    if text:
        raise WrongArgumentsError("this command takes no arguments")


def system(chat: Chat, text: str) -> None:
    """Show, replace or remove the system text."""
    for talker, prefix in _all(chat):
        if not text:
            shown = talker.session.system
            chat.screen.tell(f"{prefix}{shown}" if shown else f"[{prefix}there is no system text]")
        else:
            talker.session.set_system(None if text == "-" else unquoted(text))
    if text:
        chat.screen.note("removed the system text" if text == "-" else "set the system text")


def set_value(chat: Chat, text: str) -> None:
    """Show the settings, or one of them, or change one."""
    words = text.replace("=", " ", 1).split()
    if len(words) > 2:
        raise WrongArgumentsError("expected at most one key and one value")
    if words and words[0] not in KEYS:
        close = difflib.get_close_matches(words[0].lower(), KEYS, n=1)
        advice = f"did you mean {close[0]}?" if close else f"use one of {', '.join(KEYS)}"
        raise DataError(f"there is no setting {quoted(words[0])}", hint=advice)
    for talker, prefix in _all(chat):
        if len(words) == 2:
            talker.session.set_value(*words)
        for key in words[:1] or KEYS:
            chat.screen.tell(
                f"{prefix}{key} {_value(talker, key)}" + _range(key, is_listed=not words)
            )


def values_of(talkers: Sequence[Talker], key: str) -> Iterator[str]:
    """Yield the present values of a setting, one for each model, for completion."""
    return (_value(talker, key) for talker in talkers)


def _value(talker: Talker, key: str) -> str:
    if key in SAMPLING_KEYS:
        return f"{getattr(talker.session.settings, key):g}"
    return "none" if talker.session.seed is None else str(talker.session.seed)


def _range(key: str, *, is_listed: bool) -> str:
    return f" ({range_of(key)})" if is_listed and key in SAMPLING_KEYS else ""


def reset(chat: Chat, text: str) -> None:
    """Start a new conversation."""
    require_nothing(text)
    for talker in chat.talkers:
        talker.start_over()
    chat.screen.note("started a new conversation")


def show(chat: Chat, text: str) -> None:
    """Show the conversation from a reply on, with the numbers for /edit."""
    talkers, rest = split(chat, text)
    for talker, prefix in named(chat, talkers):
        with chat.showing_errors(talker.label if prefix else ""):
            if not talker.session.exchanges:
                raise DataError("there is no reply yet", hint="send a message first")
            chat.show_from(talker, _number(rest, len(talker.session.exchanges)) if rest else 1)


def undo(chat: Chat, text: str) -> None:
    """Remove the last exchange."""
    for talker, prefix in _chosen(chat, text):
        with chat.showing_errors(talker.label if prefix else ""):
            chat.screen.note(f"{prefix}removed: {quoted(talker.session.undo())}")


def retry(chat: Chat, text: str) -> None:
    """Stream other replies; ask which one to keep if there were several."""
    talkers, rest = split(chat, text)
    number = _number(rest, _MOST_REPLIES) if rest else 1
    for talker, prefix in named(chat, talkers):
        with chat.showing_errors(talker.label if prefix else ""):
            if not _has_retried(chat, talker, number):
                return
            if number > 1 and len(set(talker.session.alternatives)) > 1:
                _choose(chat, talker)


def _has_retried(chat: Chat, talker: Talker, number: int) -> bool:
    """Stream this number of replies; return False if the user stopped one."""
    for _ in range(number):
        if not talker.session.alternatives:
            raise DataError("there is no reply to retry", hint="send a message first")
        before = talker.session.alternatives
        label = f"{talker.label} (try {len(before) + 1})"
        if not chat.stream(talker, label, talker.session.retry):
            return False
        settings = talker.session.settings
        if (settings.temperature == 0 or settings.top_k == 1) and (
            talker.session.alternatives[-1] in before
        ):
            why = "temperature 0" if settings.temperature == 0 else "top_k 1"
            change = "temperature 0.7" if settings.temperature == 0 else "top_k 0"
            chat.screen.note(f"the same reply: {why} always gives it; /set {change} allows others")
            break
    return True


def _choose(chat: Chat, talker: Talker) -> None:
    """Ask for the number of the reply to keep; Enter keeps the last one."""
    last = len(talker.session.alternatives)
    while answer := chat.ask(f"keep which try (1-{last}, Enter: {last})? ", ""):
        with chat.showing_errors():
            talker.session.choose(_number(answer, last))
            break
    chat.screen.note(f"kept try {talker.session.chosen_number}")


def edit(chat: Chat, text: str) -> None:
    """Open the text of a reply at the prompt, and replace it."""
    talkers, rest = split(chat, text)
    talker = one_of(talkers)
    replies = [exchange.chosen_reply.text for exchange in talker.session.exchanges]
    if not replies:
        raise DataError("there is no reply to edit", hint="send a message first")
    number = _number(rest, len(replies)) if rest else len(replies)
    before = replies[number - 1]
    prefix = f"{talker.label}, " if len(chat.talkers) > 1 else ""
    after = chat.ask(f"{prefix}reply {number}: ", before)
    if after is None or after == before:
        chat.screen.note("nothing changed")
        return
    talker.session.edit(number, unquoted(after))
    chat.screen.note(
        f"changed reply {number} and marked it as good; unmarked replies will not be trained on"
    )


def tokens(chat: Chat, text: str) -> None:
    """Show the tokens of the last reply."""
    for talker, prefix in _chosen(chat, text):
        reply = talker.session.last
        if reply is None:
            chat.screen.note(f"{prefix}{_why_no_tokens(talker)}")
            continue
        lines = token_lines(talker.session.generator, reply, width_of(sys.stderr))
        chat.screen.tell("\n".join((*([prefix.strip()] if prefix else ()), *lines)))


def _why_no_tokens(talker: Talker) -> str:
    if not talker.session.exchanges:
        return "there is no reply yet; send a message first"
    return "tokens are shown only for a reply that has just been completed"


def good(chat: Chat, text: str) -> None:
    """Mark the last reply as good."""
    _judge(chat, text, is_good=True)


def bad(chat: Chat, text: str) -> None:
    """Mark the last reply as bad."""
    _judge(chat, text, is_good=False)


def _judge(chat: Chat, text: str, *, is_good: bool) -> None:
    effect = (
        "good: it will be trained on; unmarked replies will not"
        if is_good
        else "bad: it will not be trained on"
    )
    for talker, prefix in _chosen(chat, text):
        with chat.showing_errors(talker.label if prefix else ""):
            talker.session.judge(is_good)
            chat.screen.note(f"{prefix}marked the last reply as {effect}")


def _number(text: str, largest: int) -> int:
    digits = text.lstrip("0") if text.isascii() and text.isdigit() else ""
    number = int(digits) if 0 < len(digits) <= len(str(largest)) else 0
    if not 1 <= number <= largest:
        raise WrongArgumentsError(f"expected a number from 1 to {largest}, not {quoted(text)}")
    return number


def split(chat: Chat, text: str) -> tuple[Sequence[Talker], str]:
    """Return the models that a command is for, and the text after their label."""
    word, _, rest = text.partition(" ")
    if len(chat.talkers) > 1:
        for talker in chat.talkers:
            if talker.label == word:
                return [talker], rest.strip()
    return chat.talkers, text


def _chosen(chat: Chat, text: str) -> Iterator[tuple[Talker, str]]:
    """Return the models that a command without other arguments is for."""
    talkers, rest = split(chat, text)
    if rest and len(talkers) > 1:
        labels = " or ".join(talker.label for talker in talkers)
        raise WrongArgumentsError(f"name one of the models, {labels}, or none")
    require_nothing(rest)
    return named(chat, talkers)


def _all(chat: Chat) -> Iterator[tuple[Talker, str]]:
    return named(chat, chat.talkers)


def named(chat: Chat, talkers: Sequence[Talker]) -> Iterator[tuple[Talker, str]]:
    """Yield each model with a prefix for messages: its label if the chat has several models."""
    return ((one, f"{one.label}: " if len(chat.talkers) > 1 else "") for one in talkers)


def one_of(talkers: Sequence[Talker]) -> Talker:
    """Return the only model; WrongArgumentsError if the command did not select one."""
    if len(talkers) > 1:
        labels = " or ".join(talker.label for talker in talkers)
        raise WrongArgumentsError(f"name the model first: {labels}")
    return talkers[0]
