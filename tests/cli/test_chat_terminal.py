"""`convo chat` on a terminal: what a person sees and types."""

from __future__ import annotations

import os

import pytest

from tests.terminals import convo_on_terminal

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
MODEL = ("chat", "exports/tiny", "--temperature", 0)


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.parametrize("leave", ["/quit\r", "/exit\r", "\x03", "\x04"])
def test_a_terminal_talks_until_the_user_leaves(trained, leave):
    with convo_on_terminal(trained, *MODEL, "--max-new-tokens", 60) as terminal:
        terminal.wait_for("exports/tiny on cpu", "template turns", "window 128", "you: ")
        terminal.type("Hello!\r")
        terminal.wait_for("model: ", "[cut at 60 tokens]", "you: ")
        terminal.type("word " * 200 + "\r")
        terminal.wait_for("[the last message has ", "you: ")
        terminal.type("/reset\r")
        terminal.wait_for("[the conversation starts over]", "you: ")
        terminal.type("//help\r")
        terminal.wait_for("model: ", "you: ")
        terminal.type("\x03")
        terminal.wait_for("press Ctrl-C again or Ctrl-D to leave", "you: ")
        terminal.type(leave)
        assert terminal.process.wait(60) == 0
        assert terminal.is_normal
