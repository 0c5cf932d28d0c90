"""`convo chat` on a terminal: what a person sees and types."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import termios

import pytest

from convo_cli.cli.views.chatting.chat_screen import text_width
from convo_cli.cli.views.chatting.slash_commands.chat_commands import COMMANDS
from tests.commands import EXECUTABLE, environment
from tests.forks import start_fork
from tests.terminals import Terminal, convo_on_terminal

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
        terminal.wait_for(
            "(1 exchange)", "/help lists", "you: Hello!", "model (1, good): A better reply"
        )
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
    labels = ("exports/tiny", "runs/tiny")
    model = ("chat", *labels, "--seed", 1, "--max-new-tokens", 8)
    copy = tmp_path / "line.jsonl"
    typed = []
    with convo_on_terminal(trained, *model, columns=columns) as terminal:
        terminal.wait_for("you: ")

        def run(command, *shown):
            typed.append(command.split()[0].removeprefix("/"))
            terminal.type(f"{command}\r")
            terminal.wait_for(*shown, "you: ")

        for turn in range(200):
            terminal.type(f"Hello number {turn}!\r")
            terminal.wait_for(*(f"{label}: " for label in labels), "you: ")
            label = labels[turn // 20 % 2]
            if turn % 20 == 3:
                run(f"/retry {label} 2\r2", f"{label} (try 3): ", "[kept try 2]")
            if turn % 20 == 5:
                run(f"/edit {label}\r\x01\x0bA better reply", f"{label},", "good")
            if turn % 20 == 7:
                run("/undo", f"[{labels[0]}:", "removed", f"[{labels[1]}:", "removed")
            if turn % 20 == 9:
                run(f"/good {label}", f"[{label}:", "good")
                run(f"/bad {label}", f"[{label}:", "bad")
        run("/help", "/quit", "leaves", labels[0], "or", labels[1])
        run("/system Be brief.", "text]")
        run("/set temperature 0.9", *(f"{label}:" for label in labels))
        run("/set", "seed", "seed")
        run("/tokens", labels[0], "tokens/s", labels[1], "tokens/s")
        run("/nothing", "command")
        run("/show 189", "(190", "(190")
        run(f"/save {labels[1]} {copy}", "data]")
        run("/reset", "conversation]")
        run(f"/load {labels[1]}", "loaded 190")
        run("/reset", "conversation]")
        run(f"/load {labels[0]} {copy}", "loaded 190")
        run("//help", *(f"{label}: " for label in labels))
        terminal.type("/quit\r")
        assert terminal.process.wait(60) == 0
        assert terminal.is_normal
        assert "Traceback" not in terminal.text
        lines = terminal.text.split("\n")
    assert {command.name for command in COMMANDS} <= {*typed, "quit"}
    assert sum(line.startswith(f"{labels[0]}:") for line in lines) >= 200
    assert len(json.loads(copy.read_text(encoding="utf-8"))["messages"]) == 1 + 2 * 190


def test_a_resized_terminal_wraps_at_its_new_width(trained):
    with convo_on_terminal(trained, *MODEL, "--max-new-tokens", 60, columns=100) as terminal:
        terminal.wait_for("you: ")
        terminal.type("twenty words " * 5)
        terminal.wait_for(("twenty words " * 5).strip())
        terminal.resize(30)
        terminal.wait_for("twenty words", "twenty words")
        terminal.type("\r")
        terminal.wait_for("model: ", "60 tokens]", "you: ")
        terminal.type("\x04")
        assert terminal.process.wait(60) == 0
        reply = terminal.raw[terminal.raw.rindex(b"model: ") :].decode().split("[cut")[0]
    lines = reply.replace("\x1b[0m", "").strip().splitlines()
    assert len(lines) > 1
    assert all(text_width(line) <= 30 for line in lines)


@pytest.mark.parametrize("redirected", ["stdout", "stdin"])
def test_one_redirected_stream(trained, tmp_path, redirected):
    """A person still types if only stdout is redirected; stdin makes the chat a pipe."""
    terminal = Terminal()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.far_end)
    variables = environment(TERM="xterm-256color")
    process = start_fork(
        trained, *MODEL, "--max-new-tokens", 8, env=variables, start_new_session=True,
        **{**streams, redirected: subprocess.PIPE},
    )  # fmt: skip
    try:
        if redirected == "stdout":
            terminal.wait_for("you: ")
            terminal.type("Hello!\r")
            terminal.wait_for("[cut at 8 tokens]", "you: ")
            terminal.type("\x04")
            assert process.stdout is not None
            reply = process.stdout.read().decode()
            assert reply.count("\n") == 1
            assert "\x1b" not in reply
            assert reply.strip() not in terminal.text
        else:
            assert process.stdin is not None
            process.stdin.write(b"Hello!\nBye\n")
            process.stdin.close()
            terminal.wait_for("note: line 1: cut at 8 tokens", "note: line 2: cut at 8 tokens")
            assert "you: " not in terminal.text
            notes = [line for line in terminal.text.split("\n") if "note: " in line]
            assert [line.index("note: ") for line in notes] == [0, 0]
        assert process.wait(60) == 0
        assert terminal.is_normal
    finally:
        process.kill()
        process.wait(60)
        for stream in filter(None, (process.stdin, process.stdout)):
            stream.close()
        terminal.close()
    saved = list((tmp_path / "state/convo/sessions").glob("*.jsonl"))
    assert len(saved) == (redirected == "stdout")


@pytest.mark.slow
def test_ctrl_z_suspends_the_chat_until_fg(trained):
    terminal = Terminal(100)
    env = environment(TERM="xterm-256color", NO_COLOR="1", PS1="SHELL> ")
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], cwd=trained, env=env, preexec_fn=_take_terminal,
        stdin=terminal.far_end, stdout=terminal.far_end, stderr=terminal.far_end,
    )  # fmt: skip
    try:
        terminal.wait_for("SHELL> ")
        words = (EXECUTABLE, *MODEL, "--max-new-tokens", 8)
        terminal.type(" ".join(map(str, words)) + "\r")
        terminal.wait_for("you: ")
        terminal.type("begun")
        terminal.wait_for("begun")
        terminal.type("\x1a")
        terminal.wait_for("Stopped", "SHELL> ")
        terminal.type("stty -a | tr ' ' '\\n' | grep -E '^-?(echo|icanon|noflsh);?$' | xargs\r")
        terminal.wait_for("icanon echo -noflsh", "SHELL> ")
        terminal.type("fg\r")
        terminal.wait_for("you: begun")
        terminal.type(" well\r")
        terminal.wait_for("you: begun well", "cut at 8 tokens]", "you: ")
        terminal.type("\x04")
        terminal.wait_for("SHELL> ")
    finally:
        shell.kill()
        shell.wait(60)
        terminal.close()


def _take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
