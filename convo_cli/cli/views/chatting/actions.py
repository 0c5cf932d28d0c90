"""What the commands of a chat do.

Several models hear the same command; a label before the arguments names one of them.
"""

from __future__ import annotations

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
    from convo_cli.cli.views.chatting.terminal import Chat, Talker

_MOST_REPLIES = 9  # of one /retry


class WrongArgumentsError(UsageError):
    """The text after a command is not what it expects; the message ends with its usage."""


def require_nothing(text: str) -> None:
    """Raise WrongArgumentsError if there is text after a command that expects none."""
    if text:
        raise WrongArgumentsError("nothing is expected after this command")


def system(chat: Chat, text: str) -> None:
    """Show, replace or remove the system text."""
    for talker, prefix in _all(chat):
        if not text:
            shown = talker.session.system
            chat.screen.tell(f"{prefix}{shown}" if shown else f"[{prefix}there is no system text]")
        else:
            talker.session.set_system(None if text == "-" else unquoted(text))
    if text:
        chat.screen.note("the system text is removed" if text == "-" else "the system text is set")


def set_value(chat: Chat, text: str) -> None:
    """Show the settings, or one of them, or change one."""
    words = text.replace("=", " ", 1).split()
    if len(words) > 2:
        raise WrongArgumentsError("one key and one value are expected")
    if words and words[0] not in KEYS:
        raise DataError(f"there is no setting {quoted(words[0])}", hint=f"one of {', '.join(KEYS)}")
    for talker, prefix in _all(chat):
        if len(words) == 2:
            talker.session.set_value(*words)
        for key in words[:1] or KEYS:
            chat.screen.tell(
                f"{prefix}{key} {_value(talker, key)}" + _range(key, is_listed=not words)
            )


def values_of(talkers: Sequence[Talker], key: str) -> Iterator[str]:
    """Yield the values that a setting has now, for completion."""
    return (_value(talker, key) for talker in talkers)


def _value(talker: Talker, key: str) -> str:
    if key in SAMPLING_KEYS:
        return f"{getattr(talker.session.settings, key):g}"
    return "none" if talker.session.seed is None else str(talker.session.seed)


def _range(key: str, *, is_listed: bool) -> str:
    return f" ({range_of(key)})" if is_listed and key in SAMPLING_KEYS else ""


def reset(chat: Chat, text: str) -> None:
    """Start over."""
    require_nothing(text)
    for talker in chat.talkers:
        talker.start_over()
    chat.screen.note("the conversation starts over")


def undo(chat: Chat, text: str) -> None:
    """Remove the last exchange."""
    for talker, prefix in _chosen(chat, text):
        with chat.surviving(talker.label if prefix else ""):
            chat.screen.note(f"{prefix}removed: {quoted(talker.session.undo())}")


def retry(chat: Chat, text: str) -> None:
    """Stream other replies; offer the choice if more than one was asked for."""
    talkers, rest = split(chat, text)
    number = _number(rest, _MOST_REPLIES) if rest else 1
    for talker, prefix in named(chat, talkers):
        with chat.surviving(talker.label if prefix else ""):
            if not _has_retried(chat, talker, number):
                return
            if number > 1:
                _choose(chat, talker)


def _has_retried(chat: Chat, talker: Talker, number: int) -> bool:
    """Stream so many replies; return False if the user stopped one."""
    for _ in range(number):
        if not talker.session.alternatives:
            raise DataError("there is no reply to try again", hint="say something first")
        label = f"{talker.label} {len(talker.session.alternatives) + 1}"
        if not chat.stream(talker, label, talker.session.retry):
            return False
    return True


def _choose(chat: Chat, talker: Talker) -> None:
    """Ask for the number of the reply that stays; Enter keeps the last one."""
    last = len(talker.session.alternatives)
    while answer := chat.ask(f"which reply stays (1-{last}, Enter: {last})? ", ""):
        with chat.surviving():
            talker.session.choose(_number(answer, last))
            break
    chat.screen.note(f"reply {talker.session.chosen} stays")


def edit(chat: Chat, text: str) -> None:
    """Open the text of a reply at the prompt, and replace it."""
    talkers, rest = split(chat, text)
    talker = one_of(talkers)
    replies = [exchange.shown.text for exchange in talker.session.exchanges]
    if not replies:
        raise DataError("there is no reply to edit", hint="say something first")
    number = _number(rest, len(replies)) if rest else len(replies)
    before = replies[number - 1]
    after = chat.ask(f"{talker.label} {number}: ", before)
    if after is None or after == before:
        chat.screen.note("nothing is changed")
        return
    talker.session.edit(number, unquoted(after))
    chat.screen.note(
        f"reply {number} is changed and marked as good: replies without a mark are not trained on"
    )


def tokens(chat: Chat, text: str) -> None:
    """Show the tokens of the last reply."""
    for talker, prefix in _chosen(chat, text):
        reply = talker.session.last
        if reply is None:
            chat.screen.note(f"{prefix}the model gave no reply last; say something first")
            continue
        lines = token_lines(talker.session.generator, reply, width_of(sys.stderr))
        chat.screen.tell(prefix + "\n".join(lines))


def good(chat: Chat, text: str) -> None:
    """Mark the last reply as good."""
    _judge(chat, text, is_good=True)


def bad(chat: Chat, text: str) -> None:
    """Mark the last reply as bad."""
    _judge(chat, text, is_good=False)


def _judge(chat: Chat, text: str, *, is_good: bool) -> None:
    effect = (
        "good: it is trained on, and replies without a mark are not"
        if is_good
        else "bad: it is not trained on"
    )
    for talker, prefix in _chosen(chat, text):
        with chat.surviving(talker.label if prefix else ""):
            talker.session.judge(is_good)
            chat.screen.note(f"{prefix}the last reply is marked as {effect}")


def _number(text: str, largest: int) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= largest:
        raise WrongArgumentsError(f"a number from 1 to {largest} is expected, not {quoted(text)}")
    return int(text)


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
    require_nothing(rest)
    return named(chat, talkers)


def _all(chat: Chat) -> Iterator[tuple[Talker, str]]:
    return named(chat, chat.talkers)


def named(chat: Chat, talkers: Sequence[Talker]) -> Iterator[tuple[Talker, str]]:
    """Yield each model, and its label for messages if there are several in the chat."""
    return ((one, f"{one.label}: " if len(chat.talkers) > 1 else "") for one in talkers)


def one_of(talkers: Sequence[Talker]) -> Talker:
    if len(talkers) > 1:
        labels = " or ".join(talker.label for talker in talkers)
        raise WrongArgumentsError(f"name the model first: {labels}")
    return talkers[0]
