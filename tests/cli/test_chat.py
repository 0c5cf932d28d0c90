"""`convo chat` through a pipe."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import sys
import tracemalloc
from types import SimpleNamespace
from typing import Any, cast

import pytest

from convo_cli.chat.saved_sessions import SessionFile
from convo_cli.chat.session import ChatSession
from convo_cli.cli.views.chatting.piped import answer_lines
from convo_cli.config.schema import GenerationSettings, RunConfig
from convo_cli.errors import DataError
from convo_cli.model.open import open_generator
from tests.commands import run_here
from tests.forks import start_fork
from tests.unit.chat.fakes import Scripted

MODEL = "exports/tiny"
GREEDY = ("--temperature", 0)


def test_a_pipe_gets_one_line_for_each_line_that_is_not_blank(convo):
    result = convo("chat", MODEL, *GREEDY, stdin=b"\xef\xbb\xbfHello!\r\n\n   \nHow are you?\nBye")
    assert result.code == 0
    assert len(result.out.splitlines()) == 3
    assert all(
        re.match(r"note: line [145]: (the model no longer|cut at)", line)
        for line in result.err.splitlines()[1:]
    )


def test_json_is_the_whole_conversation(convo):
    result = convo(
        "chat", MODEL, "--json", *GREEDY, "--system", "Be brief.", stdin=b"Hello!\nBye\n"
    )
    messages = result.json["messages"]
    assert [message["role"] for message in messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert [messages[k]["content"] for k in (0, 1, 3)] == ["Be brief.", "Hello!", "Bye"]
    assert result.json["command"] == "chat"


def test_nothing_said_is_nothing_answered(convo):
    loading = f"loading {MODEL} (this takes a few seconds)\n"
    assert convo("chat", MODEL) == (0, "", loading)
    assert convo("chat", MODEL, "-q") == (0, "", "")
    assert convo("chat", MODEL, "--json").json["messages"] == []


def test_a_seed_repeats_a_sampled_conversation(convo):
    def talk(seed):
        return convo(
            "chat", MODEL, "-q", "--temperature", 1.5, "--seed", seed, stdin=b"Hello!\nGood\n"
        ).out

    assert talk(1) == talk(1)
    assert len({talk(seed) for seed in range(4)}) > 1


def test_quiet_leaves_the_replies_and_a_pipe_saves_no_session(convo, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    result = convo("chat", MODEL, "-q", *GREEDY, stdin=b"Hello!\n" * 9)
    assert (result.code, result.err) == (0, "")
    assert len(result.out.splitlines()) == 9
    assert not (tmp_path / "state").exists()


def test_turns_that_no_longer_fit_are_said_to_be_gone(convo):
    result = convo(
        "chat", MODEL, *GREEDY, stdin=("I like to sing and to dance. " * 3 + "\n").encode() * 4
    )
    assert "the model no longer sees the first 2 turns" in result.err


def test_a_reply_length_that_does_not_fit_is_said_to_be_shortened(convo):
    result = convo("chat", MODEL, *GREEDY, "--max-new-tokens", 65, stdin=b"Hello!\n")
    assert "\nreplies are limited to 64 tokens, half of the model's window" in result.err
    assert "replies" not in convo("chat", MODEL, *GREEDY, "--max-new-tokens", 64, stdin=b"").err


@pytest.mark.parametrize("owner", ["somebody", "runs"])
def test_a_hub_id_in_the_cache_is_a_model_like_any_other(work, convo, monkeypatch, owner):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = work / f"hub/models--{owner}--small"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text(commit)
    shutil.copytree(work / MODEL, cache / "snapshots" / commit)
    (work / "runs").rename(work / "moved")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(work / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = convo("chat", f"{owner}/small", "-q", *GREEDY, stdin=b"Hello!\n")
    assert (result.code, result.out) == (
        0,
        convo("chat", "moved/tiny", "-q", *GREEDY, stdin=b"Hello!\n").out,
    )


@pytest.mark.parametrize("model", ["runs/demo", "exports/demo"])
@pytest.mark.parametrize("command", ["chat {}", "evaluate {} valid.jsonl"])
def test_the_hub_is_not_asked_for_a_run_that_does_not_exist_yet(
    tmp_path, monkeypatch, model, command
):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", asked.append)
    (tmp_path / "valid.jsonl").write_text('["Hi", "Hello"]\n', encoding="utf-8")
    (tmp_path / "runs" / ".convo-cache").mkdir(parents=True)  # as after a dry run
    assert RunConfig.model_fields["output_dir"].default == "runs"
    result = run_here(tmp_path, *command.format(model).split())
    assert (result.code, asked) == (2, [])
    assert result.err == (
        f"error: {model}: no such directory\nhint: train a run first: convo train config.yaml "
        f"(a model of the hub: hf download {model})\n"
    )


def pipe(monkeypatch, capsys, session, text, *, as_json=False):
    """Answer lines with one session or several; return the result, stdout and stderr."""
    sessions = session if isinstance(session, list) else [session]
    names = ["first", "second"][: len(sessions)]
    source = io.BytesIO(text) if isinstance(text, bytes) else io.BufferedReader(text)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(cast(Any, source)))
    result = answer_lines(names, sessions, as_json=as_json, is_quiet=True)
    captured = capsys.readouterr()
    return result, captured.out, captured.err


def parrot(*replies, max_length=99):
    """A session whose model gives these replies, then repeats the message."""
    model: Any = Scripted(SimpleNamespace(max_length=max_length), *replies)
    return ChatSession(model, GenerationSettings())


def test_what_a_model_says_cannot_control_the_terminal(monkeypatch, capsys):
    session = parrot("\x1b[2Jred\x1b[31m\x9b1m\x1b]0;title\x07a\rb\x08[bold]")
    assert pipe(monkeypatch, capsys, session, b"hi\n")[1] == "redab[bold]\n"


def test_line_breaks_of_a_reply_do_not_break_the_pipe(monkeypatch, capsys):
    session = parrot("one\ntwo\n\nthree\tfour", "five")
    out = pipe(monkeypatch, capsys, session, b"hi\nyou\n")[1]
    assert out == "one two  three four\nfive\n"


def test_two_models_answer_in_columns(monkeypatch, capsys):
    first, second = parrot("a\tb", DataError("too long", hint="cut it")), parrot("c", "d", "e")
    result, out, err = pipe(monkeypatch, capsys, [first, second], b"1\n2\n\xff\n3\n")
    assert out == "a b\tc\n\td\n\t\n3\te\n"
    assert result is False
    assert err.splitlines() == [
        "error: <stdin>:2: first: too long",
        "hint: cut it",
        "error: <stdin>:3:1: byte 0xFF is not UTF-8",
        "hint: convert the text to UTF-8 first, for example with iconv",
    ]


def test_a_line_that_cannot_be_answered_is_an_error_and_the_rest_is_answered(monkeypatch, capsys):
    text = b"one\nbad \xc3( text\n\n" + b"x" * 3 * 2**20 + b"\nfour\n\x1b\nsix"
    session = parrot("1", DataError("the message does not fit"), "3")
    result, out, err = pipe(monkeypatch, capsys, session, b"zero\n" + text)
    assert result is False
    assert out == "1\n\n\n\n3\n\nsix\n"
    assert [line for line in err.splitlines() if line.startswith("error")] == [
        "error: <stdin>:2: the message does not fit",
        "error: <stdin>:3:5: byte 0xC3 is not UTF-8",
        "error: <stdin>:5: the line is longer than 1,048,576 bytes",
        "error: <stdin>:7: the message is empty",
    ]
    assert [turn.text for turn in session.turns] == ["zero", "1", "four", "3", "six", "six"]


def test_json_has_the_reply_or_the_error_of_each_line(monkeypatch, capsys):
    session = parrot("1", DataError("does not fit", hint="shorten it"))
    session.generator.loaded = None
    result, out, _ = pipe(monkeypatch, capsys, session, b"a\nb\n\xff\nc\n", as_json=True)
    assert result is False
    lines = json.loads(out)["lines"]
    assert [line["line"] for line in lines] == [1, 2, 3, 4]
    assert [line["reply"] for line in lines] == ["1", None, None, "c"]
    assert [line["stop_reason"] for line in lines] == ["stop", None, None, "stop"]
    assert [line["hint"] for line in lines[1:3]] == [
        "shorten it", "convert the text to UTF-8 first, for example with iconv"
    ]  # fmt: skip
    assert lines[1]["error"] == "does not fit"


class Endless(io.RawIOBase):
    """A pipe with the same content for as long as it is read, then ``rest``."""

    def __init__(self, content: bytes, size: int = sys.maxsize, rest: bytes = b"") -> None:
        self.content, self.size, self.rest = content, size, io.BytesIO(rest)
        self.num_read = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        if self.num_read >= self.size:
            return self.rest.readinto(buffer)
        buffer[:] = (self.content * len(buffer))[: len(buffer)]
        self.num_read += len(buffer)
        return len(buffer)


def test_a_line_of_any_length_is_skipped_with_bounded_memory(monkeypatch, capsys):
    endless = Endless(b"a", 2**26, b"end\nnext\n")
    tracemalloc.start()
    try:
        result, out, err = pipe(monkeypatch, capsys, parrot(), endless)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (result, out) == (False, "\nnext\n")
    assert err.startswith("error: <stdin>:1: the line is longer than 1,048,576 bytes\n")
    assert endless.num_read >= 2**26
    assert peak < 2**24


def test_lines_that_cannot_be_answered_take_no_memory(monkeypatch, capsys):
    monkeypatch.setattr("convo_cli.cli.views.chatting.piped._show", lambda remark, number: None)
    lines = Endless(b"\xff\n", 2**16)
    tracemalloc.start()
    try:
        assert pipe(monkeypatch, capsys, parrot(), lines)[0] is False
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lines.num_read >= 2**16
    assert peak < 2**20


@pytest.mark.parametrize("as_json", [False, True])
def test_lines_without_end_end_with_the_conversation(monkeypatch, capsys, as_json):
    monkeypatch.setattr("convo_cli.chat.conversation.MAX_CHARACTERS", 5000)
    endless, session = Endless(b"hello\n"), parrot(max_length=8)
    result, out, err = pipe(monkeypatch, capsys, session, endless, as_json=as_json)
    assert result is False
    assert re.match(r"error: <stdin>:\d+: the conversation is longer than 5,000 characters", err)
    assert endless.num_read < 100_000
    assert len(out) < 50_000


def test_a_pipe_with_a_line_that_does_not_fit_exits_with_3(convo):
    result = convo("chat", MODEL, "-q", *GREEDY, stdin=b"Hello!\n" + b"long " * 999 + b"\nBye\n")
    assert result.code == 3
    lines = result.out.split("\n")
    assert (len(lines), lines[1], lines[3]) == (4, "", "")
    assert result.err.startswith("error: <stdin>:2: the last message has ")
    as_json = convo("chat", MODEL, "--json", *GREEDY, stdin=b"Hello!\n\xff\n")
    assert as_json.code == 3
    first, second = as_json.json["lines"]
    assert first["num_prompt_tokens"] > 0
    assert first["num_reply_tokens"] <= 8
    assert first["stop_reason"] in ("stop", "length")
    assert second["error"] == "<stdin>:2:1: byte 0xFF is not UTF-8"


def test_two_models_answer_each_line_of_a_pipe(convo):
    words = ("-q", *GREEDY)
    single = convo("chat", MODEL, *words, stdin=b"Hello!\nBye\n").out.splitlines()
    both = convo("chat", MODEL, "runs/tiny", *words, stdin=b"Hello!\nBye\n")
    assert both.code == 0
    assert [line.split("\t")[0] for line in both.out.splitlines()] == single
    models = convo("chat", MODEL, "runs/tiny", "--json", *words, stdin=b"Hello!\n").json["models"]
    assert [one["model"] for one in models] == [MODEL, "runs/tiny"]
    assert [len(one["messages"]) for one in models] == [2, 2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((MODEL, MODEL, MODEL), "a chat has at most 2 models, not 3"),
        ((MODEL, MODEL, "--continue"), "--continue: a session belongs to one model"),
        ((MODEL, "--continue"), "there is no saved session with this model"),
        ((MODEL, "--min-p", "1"), "Invalid value"),
        ((MODEL, "--repetition-penalty", "0.5"), "Invalid value"),
        ((MODEL, "--top-k", "1000001"), "Invalid value"),  # a saved session could not have it
        ((MODEL, "--max-new-tokens", str(2**20 + 1)), "Invalid value"),
    ],
)
def test_invalid_arguments_of_a_chat_are_usage_errors(convo, tmp_path, monkeypatch, words, message):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    result = convo("chat", *words, stdin=b"Hello!\n")
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_a_pipe_continues_a_session_without_changing_its_file(convo, work, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    generator = open_generator(str(work / MODEL), device="cpu", emit=lambda event: None)
    session = ChatSession(generator, GenerationSettings(temperature=0), system="Be kind.")
    session.say("Hello!", lambda text: None)
    session.edit(1, "Good morning to you.")
    file = SessionFile.new(session.contract)
    file.save(session)
    before = file.path.read_bytes() if file.path else b""
    result = convo("chat", MODEL, "--continue", "--json", stdin=b"Bye\n")
    assert result.code == 0
    assert "\ncontinuing the last session with this model (1 exchange)\n" in result.err
    texts = [message["content"] for message in result.json["messages"]]
    assert texts[:4] == ["Be kind.", "Hello!", "Good morning to you.", "Bye"]
    assert file.path is not None
    assert file.path.read_bytes() == before
    assert len(list(file.path.parent.glob("*.jsonl"))) == 1
    file.close()


@pytest.mark.skipif(os.name != "posix", reason="signals and pseudo-terminals")
class TestProcess:
    """Real processes: a fork, and the executable on a terminal."""

    def test_ctrl_c_ends_a_pipe_with_130_and_without_a_traceback(self, trained):
        process = start_fork(trained, "chat", MODEL, *GREEDY)
        try:
            process.stdin.write(b"Hello!\n")
            process.stdin.flush()
            assert process.stdout.readline().strip()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert (process.returncode, out) == (130, b"")
        assert "Traceback" not in err.decode()
        assert err.endswith(b"\nstopped\n")
