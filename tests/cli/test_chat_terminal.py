"""`convo chat` on a terminal: what a person sees and types."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

from tests.terminals import convo_on_terminal

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
MODEL = ("chat", "exports/tiny", "--temperature", 0)


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.parametrize("leave", ["/quit\r", "/exit\r", "\x03", "\x04"])
def test_a_chat_on_a_terminal_lasts_until_the_user_leaves(trained, leave):
    with convo_on_terminal(trained, *MODEL, "--max-new-tokens", 60) as terminal:
        terminal.wait_for("exports/tiny on cpu", "template turns", "window 128 tokens", "you: ")
        terminal.type("Hello!\r")
        terminal.wait_for("model: ", "[cut at 60 tokens]", "you: ")
        terminal.type("word " * 200 + "\r")
        terminal.wait_for("[the last message has ", "you: ")
        terminal.type("/reset\r")
        terminal.wait_for("[started a new conversation]", "you: ")
        terminal.type("//help\r")
        terminal.wait_for("model: ", "you: ")
        terminal.type("\x03")
        terminal.wait_for("press Ctrl-C again or Ctrl-D to leave", "you: ")
        terminal.type(leave)
        terminal.wait_for("start with --continue")
        assert terminal.process.wait(60) == 0
        assert terminal.is_normal


def test_a_continued_chat_shows_its_last_exchange_and_retries_are_tries(trained):
    with convo_on_terminal(trained, *MODEL, "--max-new-tokens", 8) as terminal:
        terminal.wait_for("you: ")
        terminal.type("Hello!\r")
        terminal.wait_for("model: ", "you: ")
        terminal.type("/set temperature 9\r/retry 2\r")
        terminal.wait_for("model (try 2): ", "model (try 3): ", "keep which try (1-3")
        terminal.type("2\r")
        terminal.wait_for("[kept try 2]", "you: ")
        terminal.type("/edit\r")
        terminal.wait_for("reply 1: ")
        terminal.type("\x01\x0bA better reply\r")
        terminal.wait_for("changed reply 1", "you: ")
        terminal.type("/set temprature 1\r")
        terminal.wait_for("did you mean temperature?]", "you: ")
        terminal.type("\x04")
        assert terminal.process.wait(60) == 0
    with convo_on_terminal(trained, *MODEL, "--continue") as terminal:
        terminal.wait_for("(1 exchange)", "/help lists", "you: Hello!", "model: A better reply")
        terminal.type("/good runs/tiny\r")
        terminal.wait_for("takes no arguments", "you: ")
        terminal.type("\x04")
        assert terminal.process.wait(60) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("is_replying", [False, True])
def test_a_signal_ends_the_chat_with_the_session_saved(trained, tmp_path, number, is_replying):
    with convo_on_terminal(trained, *MODEL, "--max-new-tokens", 8) as terminal:
        terminal.wait_for("you: ")
        terminal.type("Hello!\r")
        terminal.wait_for("model: ", "you: ")
        if is_replying:
            terminal.type("Again\r")
            terminal.wait_for("model: ")
        terminal.process.send_signal(number)
        terminal.wait_for("stopped")
        assert terminal.process.wait(60) == 128 + number
        assert terminal.is_normal
    saved = list((tmp_path / "state/convo/sessions").glob("*.jsonl"))
    assert len(saved) == 1
    assert '"content": "Hello!"' in saved[0].read_text(encoding="utf-8")
    assert "Traceback" not in terminal.text


def test_a_terminal_that_closes_ends_the_chat(trained, tmp_path):
    with convo_on_terminal(trained, *MODEL, "--max-new-tokens", 8) as terminal:
        terminal.wait_for("you: ")
        terminal.type("Hello!\r")
        terminal.wait_for("model: ", "you: ")
        terminal.close()
        assert terminal.process.wait(60) in (0, 128 + signal.SIGHUP)
    assert len(list((tmp_path / "state/convo/sessions").glob("*.jsonl"))) == 1


def test_two_models_answer_below_each_other(trained):
    models = ("chat", "exports/tiny", "runs/tiny", "--temperature", 0, "--max-new-tokens", 8)
    with convo_on_terminal(trained, *models) as terminal:
        terminal.wait_for("exports/tiny on cpu", "runs/tiny on cpu", "you: ")
        terminal.type("Hello!\r")
        terminal.wait_for("exports/tiny: ", "runs/tiny: ", "you: ")
        terminal.type("/good\r")
        terminal.wait_for("exports/tiny: marked the last", "runs/tiny: marked the last", "you: ")
        terminal.type("/edit\r")
        terminal.wait_for("name the model first", "you: ")
        terminal.type("/good tiny\r")
        terminal.wait_for("name one of the models, exports/tiny or runs/tiny, or none", "you: ")
        terminal.type("/tokens runs/tiny\r")
        terminal.wait_for("probability", "first token:", "memory bandwidth:", "you: ")
        terminal.type("\x04")
        assert terminal.process.wait(60) == 0


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_labels_distinguish_user_and_model_without_colours(trained, variables):
    with convo_on_terminal(trained, *MODEL, "--max-new-tokens", 8, **variables) as terminal:
        terminal.wait_for("you: ")
        terminal.type('"""one\rtwo"""\r')
        terminal.wait_for("model: ", "you: ")
        terminal.type("\x04")
        assert terminal.process.wait(60) == 0
        assert not re.search(rb"\x1b\[[0-9;]*3[0-9]m", terminal.raw)
        assert variables != {"TERM": "dumb"} or b"\x1b" not in terminal.raw
        assert terminal.is_normal


@pytest.mark.slow
@pytest.mark.parametrize("columns", [20, 40, 80, 120])
def test_two_hundred_turns_with_every_command(trained, tmp_path, columns):
    model = ("chat", "exports/tiny", "--seed", 1, "--max-new-tokens", 8)
    copy = tmp_path / "line.jsonl"
    commands = {
        "/help": "leaves",
        "/system Be brief.": "[set the system text]",
        "/set temperature 0.9": "temperature 0.9",
        "/set": "seed 1",
        "/good": "as good",
        "/bad": "as bad",
        "/tokens": "tokens/s",
        f"/save {copy}": "training data",
        "/load": "loaded",
        "/nothing": "no command",
        "/edit 9999": "from 1 to",
    }
    with convo_on_terminal(trained, *model, columns=columns) as terminal:
        terminal.wait_for("you: ")
        for turn in range(200):
            terminal.type(f"Hello number {turn}!\r")
            terminal.wait_for("model: ", "you: ")
            if turn % 20 == 3:
                terminal.type("/retry 2\r2\r")
                terminal.wait_for("[kept try 2]", "you: ")
            if turn % 20 == 5:
                terminal.type("/edit\r")
                terminal.wait_for(": ")
                terminal.type("\x01\x0bA better reply\r")
                terminal.wait_for("changed", "you: ")
            if turn % 20 == 7:
                terminal.type("/undo\r")
                terminal.wait_for("removed", "you: ")
        for command in commands:
            terminal.type(f"{command}\r")
            terminal.wait_for("you: ")
            if command == "/load":
                terminal.type("/reset\r")
                terminal.wait_for("[started a new", "you: ")
                terminal.type(f"/load {copy}\r")
                terminal.wait_for("loaded", "you: ")
        terminal.type("/quit\r")
        assert terminal.process.wait(60) == 0
        assert terminal.is_normal
        words = " ".join(terminal.text.split())
        for command, shown in commands.items():
            assert shown in words or command == "/load"
        assert "Traceback" not in words
    assert len(json.loads(copy.read_text(encoding="utf-8"))["messages"]) == 1 + 2 * 190
