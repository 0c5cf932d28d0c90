"""Keys and texts of a chat on a terminal, with replies that the test chooses."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.hostile_texts import HOSTILE_TEXTS, UNSHOWN
from tests.terminals import Speaker, chat_here

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals"),
    pytest.mark.usefixtures("colour_terminal"),
]


@pytest.fixture
def encoder(make_encoder):
    return make_encoder()


@pytest.mark.parametrize("columns", [20, 80])
def test_hostile_replies_stay_text(encoder, columns):
    speaker = Speaker(encoder)
    texts = {name: text for name, text in HOSTILE_TEXTS.items() if len(text) < 20_000}

    def drive(terminal):
        for text in texts.values():
            speaker.pieces = [text[at : at + 2] for at in range(0, len(text), 2)]
            terminal.type("hi\r")
            terminal.wait_for("model: ", "you: ")

    terminal = chat_here({"exports/tiny": speaker}, drive, columns)
    for line in terminal.text.split("\n"):
        assert not UNSHOWN.search(line)
    # The cursor never left the last line, so no line is overwritten.
    assert terminal.text.count("you: hi") == len(texts)


def test_hostile_messages_and_names_stay_text(encoder):
    def drive(terminal):
        for text in HOSTILE_TEXTS.values():
            if len(text) < 300:
                pasted = text.encode("utf-8", "replace").replace(b"\x1b[201~", b"")
                terminal.type(b"/x\x1b[200~" + pasted + b"\x1b[201~\r")
                terminal.wait_for("you: ")
                terminal.type("\x03")
                terminal.wait_for("you: ")

    terminal = chat_here({"a\x1b]0;t\x07\u202e": Speaker(encoder, "ok")}, drive)
    assert not UNSHOWN.search(terminal.text.replace("\n", ""))


class Slow:
    """Pauses a reply until the test lets it continue."""

    def __init__(self) -> None:
        self.may_go_on = self.is_waiting = False

    def __call__(self, piece):
        deadline = time.monotonic() + 30
        while not self.may_go_on and piece.startswith("wait"):
            self.is_waiting = True
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.is_waiting = False

    def wait(self):
        while not self.is_waiting:
            time.sleep(0.01)


def test_keys_during_a_reply_wait_for_the_next_prompt(encoder):
    slow = Slow()
    speaker = Speaker(encoder, "one ", "wait ", "two", on_piece=slow)

    def drive(terminal):
        terminal.type("hi\r")
        terminal.wait_for("model: one")
        terminal.type("seven\reight\x7f\x7fy\x1b\rten\rtwelve")
        terminal.read(0.3)
        assert "seven" not in terminal.text
        slow.may_go_on = True
        terminal.wait_for("two", "you: seven", "model: ", "you: eigy", "ten", "model: ", "twelve")
        terminal.type("\x03")

    terminal = chat_here({"m": speaker}, drive)
    assert speaker.heard == ["hi", "seven", "eigy\nten"]
    assert terminal.text.count("model: one wait two\n") == 3
    assert terminal.is_normal


def test_ctrl_c_stops_a_reply_and_keeps_what_was_said(encoder):
    slow = Slow()
    speaker = Speaker(encoder, "one ", "wait ", "two", on_piece=slow)

    def drive(terminal):
        terminal.type("hi\r")
        slow.wait()
        terminal.type("next")
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        terminal.wait_for("wait", "[stopped; the part that is shown is kept]", "you: next")
        slow.may_go_on = True
        terminal.type("\r")
        terminal.wait_for("model: one wait two", "you: ")

    chat_here({"m": speaker}, drive)
    assert speaker.histories[-1] == ["hi", "one wait", "next"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("one\x1b\rtwo\r", "one\ntwo"),
        ('"""one\rtwo\r"""\r', "one\ntwo"),
        ('"""one\r\r  two"""\r', "one\n\n  two"),
        ('"""/help"""\r', "/help"),
        ("//help me\r", "/help me"),
        ("\x1b[200~one\r\ntwo\rthree\x1b[201~\r", "one\ntwo\nthree"),
        ("\x1b[200~a\tb\x1b[31mc\x1b[201~\r", "a\tb[31mc"),
        ("wrong\x03right\r", "right"),
        ("one two\x17three\r", "one three"),
        (b"a\xff\xc3b\r", "a??b"),
    ],
)
def test_keys_write_a_message(encoder, keys, message):
    speaker = Speaker(encoder, "ok")

    def drive(terminal):
        terminal.type(keys)
        terminal.wait_for("model: ok", "you: ")

    chat_here({"m": speaker}, drive)
    assert speaker.heard == [message]


def test_a_huge_paste_is_one_message(encoder):
    speaker, lines = Speaker(encoder, "ok"), "many words in a line\n" * 2_000

    def drive(terminal):
        terminal.type(f"\x1b[200~{lines}\x1b[201~")
        terminal.type("\r")
        terminal.wait_for("model: ok", "you: ")

    chat_here({"m": speaker}, drive)
    assert speaker.heard == [lines.strip()]


def test_the_history_outlives_the_chat(encoder, tmp_path):
    speaker = Speaker(encoder, "ok")

    def first(terminal):
        for message in ("alpha one", "beta\x1b\rtwo", "gamma"):
            terminal.type(f"{message}\r")
            terminal.wait_for("model: ok", "you: ")

    def second(terminal):
        terminal.type("\x1b[A\r")
        terminal.wait_for("model: ok", "you: ")
        terminal.type("\x12pha\r\r")
        terminal.wait_for("model: ok", "you: ")

    chat_here({"m": speaker}, first)
    file = tmp_path / "state/convo/chat_history.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    chat_here({"m": speaker}, second)
    assert speaker.heard == ["alpha one", "beta\ntwo", "gamma", "gamma", "alpha one"]


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "not text"])
def test_a_history_that_cannot_be_stored_lasts_for_one_chat(encoder, tmp_path, kind):
    file = tmp_path / "state/convo/chat_history.jsonl"
    file.parent.mkdir(parents=True)
    target = tmp_path / "target"
    target.write_text("mine")
    if kind == "folder":
        file.mkdir()
    elif kind == "link":
        file.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.write_bytes(b"\xff\x00\n[[[[\n5\n" + b"[" * 100_000)
    speaker = Speaker(encoder, "ok")

    def drive(terminal):
        terminal.type("alpha\r")
        terminal.wait_for("model: ok", "you: ")
        terminal.type("\x1b[A\r")
        terminal.wait_for("model: ok", "you: ")

    terminal = chat_here({"m": speaker}, drive)
    assert speaker.heard == ["alpha", "alpha"]
    assert target.read_text() == "mine"
    assert "Error" not in terminal.text


@pytest.mark.parametrize(
    ("begun", "completed"),
    [
        ("/unds\x7f\t", "/undo"),
        ("/set te\t", "/set temperature"),
        ("/set top_k \t", "/set top_k 0"),
        ("/load fi\t", "/load file name.jsonl"),
        ("/save ~/fi\t", "/save ~/file name.jsonl"),
    ],
)
def test_tab_completes(encoder, tmp_path, monkeypatch, begun, completed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file name.jsonl").touch()
    (tmp_path / "fi\x1b]0;t\x07").touch()

    def drive(terminal):
        terminal.type(begun)
        terminal.wait_for("you: " if False else completed)
        terminal.type("\x03")

    chat_here({"m": Speaker(encoder, "ok")}, drive)


def test_an_editor_writes_the_message(encoder, tmp_path, monkeypatch):
    script = tmp_path / "editor"
    script.write_text("#!/bin/sh\nprintf ' and\\nmore\\n' >> \"$1\"\n")
    script.chmod(0o755)
    speaker = Speaker(encoder, "ok")

    def drive(terminal):
        monkeypatch.setenv("VISUAL", str(script))
        terminal.type("begun\x18\x05")
        terminal.wait_for("more")
        terminal.type("\r")
        terminal.wait_for("model: ok", "you: ")
        for broken, message in (
            ("/no/such/editor -w", "no such program"),
            ("'", "$VISUAL is not a command"),
            ("false", "false ended with exit code 1"),
        ):
            monkeypatch.setenv("VISUAL", broken)
            terminal.type("x\x18\x05")
            terminal.wait_for(message, "you: x")
            terminal.type("\x7f")
        script.write_text("#!/bin/sh\nprintf '\\377' > \"$1\"\n")
        monkeypatch.setenv("VISUAL", str(script))
        terminal.type("\x18\x05")
        terminal.wait_for("\ufffd")
        terminal.type("\x03")

    chat_here({"m": speaker}, drive)
    assert speaker.heard == ["begun and\nmore"]
