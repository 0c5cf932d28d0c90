"""Commands of a chat on a terminal with wrong and hostile arguments."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest

from convo_cli.cli.views.chatting.prompts.typed_ahead import Keyboard
from convo_cli.signals import leave
from tests.terminals import Speaker, Terminal, chat_here

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals"),
    pytest.mark.usefixtures("colour_terminal"),
]


@pytest.fixture
def encoder(make_encoder):
    return make_encoder()


def chat(speakers, *steps, columns=120):
    """Type each text and wait for what follows it, then for the next prompt."""

    def drive(terminal):
        for keys, *shown in steps:
            terminal.type(f"{keys}\r")
            terminal.wait_for(*shown, "you: ")

    return chat_here(speakers, drive, columns)


def test_a_greedy_retry_says_that_the_reply_stays_the_same(encoder):
    terminal = chat(
        {"m": Speaker(encoder, "ok")},
        ("hi", "model: ok"),
        ("/retry", "model (try 2): ok"),
        ("/set temperature 0", "temperature 0"),
        ("/retry 9", "model (try 3): ok", "[the same reply: temperature 0 always gives it; /set"),
        ("/set temperature 1", "temperature 1"),
        ("/set top_k 1", "top_k 1"),
        ("/retry", "model (try 4): ok", "[the same reply: top_k 1 always gives it; /set top_k 0"),
    )
    assert "which reply" not in terminal.text
    assert terminal.text.count("the same reply") == 2


def test_the_conversation_is_shown_with_the_numbers_of_its_replies(encoder):
    terminal = chat(
        {"m": Speaker(encoder, "ok")},
        ("/show", "there is no reply yet; send a message first"),
        ("one", "model: ok"),
        ("/good", "good"),
        ("two", "model: ok"),
        ("/show", "you: one", "model (1, good): ok", "you: two", "model (2): ok"),
        ("/show 2", "you: two", "model (2): ok"),
        ("/show 3", "expected a number from 1 to 2, not "),
    )
    assert terminal.text.count("model (1, good): ok") == 1


@pytest.mark.parametrize(
    "number", ["-1", "0", "10", "1e3", "٣", "²", "1" + "0" * 30, "NaN", '""', "1 1", "x" * 300]
)
def test_a_number_of_replies_is_one_from_1_to_9(encoder, number):
    speaker = Speaker(encoder, "ok")
    terminal = chat(
        {"m": speaker},
        ("hi", "model: ok"),
        (f"/retry {number}", "expected a number from 1 to 9, not "),
        (f"/edit {number}", "expected a number from 1 to 1, not "),
    )
    assert len(speaker.heard) == 1
    assert "Traceback" not in terminal.text


def test_leading_zeros_of_a_number_have_no_effect(encoder):
    speaker = Speaker(encoder, "ok")
    chat(
        {"m": speaker},
        ("hi", "model: ok"),
        ("/retry 0000000019", "expected a number from 1 to 9"),
        ("/edit 0000000019", "expected a number from 1 to 1"),
        ("/edit 000000001" + "0" * 5000, "expected a number from 1 to 1"),
        ("/retry 0000000001", "model (try 2): ok"),
    )
    assert len(speaker.heard) == 2


def test_a_system_text_of_several_quoted_lines_is_for_both_models(encoder):
    first, second = Speaker(encoder, "ok"), Speaker(encoder, "yes")
    chat(
        {"a": first, "b": second},
        ('/system """Be kind.\r\r  Be brief."""', "[set the system text]"),
        ("/system", "a: Be kind.", "  Be brief.", "b: Be kind."),
        ("/set top_k 7", "a: top_k 7", "b: top_k 7"),
        ("/set", "a: temperature 0.7", "a: top_k 7", "a: seed none", "b: top_k 7", "b: seed none"),
        ("/set top_k x", "'x' is not a whole number from 0 to 1,000,000; such as 7"),
        ("hi", "a: ok", "b: yes"),
        ("/system -", "[removed the system text]"),
        ("/system", "[a: there is no system text]", "[b: there is no system text]"),
        ("bye", "a: ok", "b: yes"),
    )
    for speaker in (first, second):
        assert speaker.histories[0] == ["Be kind.\n\n  Be brief.", "hi"]
        assert speaker.histories[1][0] == "hi"


@pytest.mark.parametrize(
    "keys",
    ["a\x1b[31mb", "a\x1b[1;2Mb", "a\x1b[<1;2;3Mb", "a\x1b[24;1Rb", "a\x1b[" + "9" * 5000 + ";1Rb"],
)
def test_control_sequences_outside_a_paste_are_no_keys(encoder, keys):
    """A terminal without bracketed paste sends coloured text as it is."""
    speaker = Speaker(encoder, "ok")
    chat({"m": speaker}, (keys, "model: ok"))
    assert speaker.heard == ["ab"]


def test_only_a_regular_file_is_saved_or_replaced(encoder, tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "lost").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    kinds = {
        "link": "symbolic link",
        "lost": "symbolic link",
        "folder": "directory",
        "pipe": "pipe (FIFO)",
    }
    terminal = chat(
        {"m": Speaker(encoder, "ok")},
        ("hi", "model: ok"),
        *(
            (f"/save {tmp_path / name}", f"not a regular file, but a {kinds[name]}")
            for name in kinds
        ),
        ("/save /dev/full", "not a regular file, but a device"),
        (f"/save {tmp_path / 'no/such/x'}", "No such file or directory"),
        ("/save " + "x" * 300, "too long"),
        ("/save ~nosuchuser/x", "there is no such home directory"),
        (f'/save "{tmp_path}/a  b.jsonl"', "[wrote "),
        (f"/save {tmp_path}/a'b\" c.jsonl", "[wrote "),
        columns=200,
    )
    assert "exists; replace" not in terminal.text
    assert "output_dir" not in terminal.text
    assert target.read_text() == "mine"
    for name in ("a  b.jsonl", "a'b\" c.jsonl"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_a_file_is_replaced_only_after_a_yes(encoder, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    answers = []

    def drive(terminal):
        terminal.type("hi\r")
        terminal.wait_for("model: ok", "you: ")
        for answer in ("n\r", "\x03", "\x04", "yep\r", "y\r"):
            terminal.type(f"/save {file}\r")
            terminal.wait_for("replace it (y/n)? ")
            terminal.type(answer)
            terminal.wait_for("]", "you: ")
            answers.append(file.read_text())

    chat_here({"m": Speaker(encoder, "ok")}, drive, 200)
    assert answers[:4] == ["mine"] * 4
    assert json.loads(answers[4])["messages"][0]["content"] == "hi"


def test_what_a_file_of_another_program_holds_is_refused_or_read_as_text(encoder, tmp_path):
    file, copy = tmp_path / "line", tmp_path / "copy"
    texts = {
        "message": ("\x07 ", "$.messages[1]: the message is blank"),
        "system": (" \x00 ", "[loaded 1 exchange"),
        "model": ("m\n" * 9_000, "[the session was saved with another model: m m m"),
    }

    def drive(terminal):
        terminal.type(f"hi\r/save {file}\r")
        terminal.wait_for("[wrote ", "you: ")
        for part, (text, shown) in texts.items():
            line = json.loads(file.read_text())
            line["messages"].insert(0, {"role": "system", "content": "Be kind."})
            if part == "model":
                line["convo_session"]["model"] = text
            else:
                line["messages"][part == "message"]["content"] = text
            copy.write_text(json.dumps(line))
            terminal.type(f"/load {copy}\r")
            terminal.wait_for(shown, "you: ")
            if part == "system":
                terminal.type("/system\r")
                terminal.wait_for("there is no system text", "you: ")

    assert len(chat_here({"m": Speaker(encoder, "ok")}, drive, 200).text) < 5_000


def test_a_session_that_cannot_be_saved_is_a_warning(encoder, tmp_path):
    folder = tmp_path / "state/convo/sessions"

    def drive(terminal):
        folder.parent.mkdir(parents=True)
        folder.symlink_to(tmp_path)
        terminal.type("one\r")
        terminal.wait_for("warning: the session is not saved", "symbolic link", "you: ")
        terminal.type("two\r")
        terminal.wait_for("model: ok", "you: ")
        terminal.type("/save\r")
        terminal.wait_for("warning: the session is not saved", "symbolic link", "you: ")
        folder.unlink()
        terminal.type("three\r")
        terminal.wait_for("model: ok", "you: ")
        assert len(list(folder.glob("*.jsonl"))) == 1
        shutil.rmtree(folder)
        terminal.type("four\r")
        terminal.wait_for("model: ok", "you: ")
        assert len(list(folder.glob("*.jsonl.lock"))) == 1
        shutil.rmtree(folder)
        folder.symlink_to(tmp_path)
        terminal.type("five\r")
        terminal.wait_for("warning: the session is not saved", "symbolic link", "you: ")
        folder.unlink()

    terminal = chat_here({"m": Speaker(encoder, "ok")}, drive, 200)
    assert terminal.text.count("warning") == 3
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_process_that_leaves_at_once_restores_the_terminal(monkeypatch):
    terminal = Terminal()
    with open(terminal.far_end, closefd=False) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        if (child := os.fork()) == 0:
            try:
                os.setsid()
                os.close(os.open(os.ttyname(terminal.far_end), os.O_RDWR))  # now its terminal
                with Keyboard(is_raw=True).silenced():
                    assert not terminal.is_normal
                    leave(signal.SIGTERM)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM
    assert terminal.is_normal
    terminal.close()


def test_a_long_question_has_its_own_line_on_a_narrow_terminal(encoder):
    terminal = chat(
        {"a-long-model": Speaker(encoder, "ok"), "b": Speaker(encoder, "yes")},
        ("hi", "a-long-model: ok", "b: yes"),
        ("/edit a-long-model\r, fine", "> ok", ", fine", "[changed reply 1"),
        columns=20,
    )
    assert "a-long-model, reply\n1:\n> ok, fine\n[changed" in terminal.text
