"""The history of a conversation: kept after a reply, unchanged after an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from convo_cli.chat import conversation as module
from convo_cli.chat.session import ChatSession
from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError
from convo_cli.model.decoding.generator import Reply

SETTINGS = GenerationSettings(max_new_tokens=5)


class Echo:
    """Repeats the last message, with spaces around it, and remembers every history."""

    def __init__(self, max_length=128):
        self.histories = []
        self.encoder = SimpleNamespace(max_length=max_length)

    def stream(self, history, settings, on_text, *, seed, index):
        assert settings is SETTINGS
        self.histories.append(list(history))
        if "too long" in history[-1].text:
            raise DataError("the last message is 99 tokens")
        text = f" {history[-1].text}\n"
        on_text(text)
        return Reply(text, (1,), True, 0)


def start(system=None, max_length=128):
    echo: Any = Echo(max_length)
    return ChatSession(echo, SETTINGS, system=system)


def test_both_turns_belong_to_the_history_of_the_next_reply():
    session, shown = start(), []
    assert session.say("  one\n", shown.append).text == " one\n"
    session.say("two", shown.append)
    assert session.generator.histories == [
        [Turn("user", "one")],
        [Turn("user", "one"), Turn("assistant", "one"), Turn("user", "two")],
    ]
    assert session.turns[-1] == Turn("assistant", "two")
    assert shown == [" one\n", " two\n"]


def test_the_system_turn_comes_first_and_survives_a_reset():
    session = start(" Be kind. ")
    session.say("one", lambda text: None)
    session.reset()
    assert session.turns == [Turn("system", "Be kind.")]
    session.say("two", lambda text: None)
    assert session.generator.histories[-1] == [Turn("system", "Be kind."), Turn("user", "two")]


def test_a_reset_without_a_system_turn_leaves_nothing():
    session = start()
    session.say("one", lambda text: None)
    session.reset()
    assert session.turns == []


@pytest.mark.parametrize("blank", [None, "", "  \n"])
def test_a_blank_system_text_is_no_turn(blank):
    assert start(blank).turns == []


def raising(error):
    def stop(text):
        raise error

    return stop


def test_a_reply_that_ctrl_c_stops_is_kept_as_far_as_it_was_shown():
    session = start("s")
    session.say("one", lambda text: None)
    before = list(session.turns)
    with pytest.raises(KeyboardInterrupt):
        session.say("two", raising(KeyboardInterrupt()))
    kept = [*before, Turn("user", "two"), Turn("assistant", "two")]
    assert session.turns == kept
    session.say("three", lambda text: None)
    assert session.generator.histories[-1] == [*kept, Turn("user", "three")]


def test_a_reply_that_is_stopped_before_it_begins_leaves_no_turn_behind():
    session = start("s")
    session.generator.stream = lambda *arguments, **options: raising(KeyboardInterrupt())("")
    with pytest.raises(KeyboardInterrupt):
        session.say("one", lambda text: None)
    assert session.turns == [Turn("system", "s")]


def test_a_reply_that_cannot_be_shown_was_never_said():
    session = start("s")
    session.say("one", lambda text: None)
    before = list(session.turns)
    with pytest.raises(BrokenPipeError):
        session.say("two", raising(BrokenPipeError()))
    assert session.turns == before


def test_a_message_that_does_not_fit_was_never_said():
    session = start()
    with pytest.raises(DataError, match="99 tokens"):
        session.say("too long", lambda text: None)
    assert session.turns == []


@pytest.mark.parametrize("blank", ["", "  ", "\n\t"])
def test_an_empty_message_is_refused_before_the_model_is_asked(blank):
    session = start()
    with pytest.raises(DataError, match="the message is empty"):
        session.say(blank, lambda text: None)
    assert session.generator.histories == session.turns == []


def test_the_history_that_was_handed_out_does_not_change_later():
    session = start()
    session.say("one", lambda text: None)
    first = session.turns
    session.say("two", lambda text: None)
    assert len(first) == 2


# Bounds


@pytest.mark.parametrize("system", [None, "Be kind."])
def test_a_history_longer_than_any_window_is_not_even_read(system):
    session = start(system, max_length=6)
    dropped = [session.say(f"message {k}", lambda text: None).num_dropped for k in range(9)]
    assert dropped == [0, 0, 0, 0, 2, 4, 6, 8, 10]
    history = session.generator.histories[-1]
    assert history[0] == (Turn("system", "Be kind.") if system else Turn("user", "message 5"))
    assert history[-7:][0] == Turn("user", "message 5")
    assert history[-1] == Turn("user", "message 8")
    assert len(session.turns) == 18 + bool(system)


def test_a_conversation_has_an_end_and_a_reset_begins_another(monkeypatch):
    monkeypatch.setattr(module, "MAX_CHARACTERS", 20)
    session = start()
    session.say("12345", lambda text: None)
    with pytest.raises(DataError, match="longer than 20 characters") as caught:
        session.say("123456789", lambda text: None)
    assert "/reset" in str(caught.value.hint)
    assert len(session.turns) == 2
    session.reset()
    assert session.say("123456789", lambda text: None).text == " 123456789\n"


def test_a_reply_without_end_is_stopped_and_was_never_said(monkeypatch):
    monkeypatch.setattr("convo_cli.chat.streamed.MAX_REPLY_CHARACTERS", 9)
    session, shown = start(), []
    assert session.say("1234567", shown.append).text == " 1234567\n"
    with pytest.raises(DataError, match="the reply is longer than 9 characters"):
        session.say("12345678", shown.append)
    assert shown == [" 1234567\n"]
    assert len(session.turns) == 2
