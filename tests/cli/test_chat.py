"""`convo chat` through a pipe and on a terminal."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from convo_cli.chat.session import ChatSession
from convo_cli.cli.views.chatting.piped import answer_lines
from convo_cli.config.schema import GenerationSettings, RunConfig
from convo_cli.data.dialogue import Turn
from convo_cli.errors import DataError
from convo_cli.model.decoding.generator import Reply
from tests.commands import run_here
from tests.forks import start_fork

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


def test_quiet_leaves_the_replies(convo):
    result = convo("chat", MODEL, "-q", *GREEDY, stdin=b"Hello!\n" * 9)
    assert (result.code, result.err) == (0, "")
    assert len(result.out.splitlines()) == 9


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


class Parrot:
    """A session whose model repeats given text, in pieces."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces
        self.turns: list[Turn] = []

    def say(self, text, on_text):
        for piece in self.pieces:
            on_text(piece)
        self.turns += [Turn("user", text), Turn("assistant", "".join(self.pieces))]
        return Reply("".join(self.pieces), (1,), True, 0)


def pipe(monkeypatch, capsys, session, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    answer_lines(session, as_json=False, is_quiet=False)
    return capsys.readouterr().out


def test_what_a_model_says_cannot_control_the_terminal(monkeypatch, capsys):
    pieces = ("\x1b[2Jred\x1b", "[31m", "\x9b1m", "\x1b]0;title\x07", "a\rb\x08", "[bold]")
    out = pipe(monkeypatch, capsys, Parrot(*pieces), b"hi\n")
    assert out == "redab[bold]\n"


def test_line_breaks_of_a_reply_do_not_break_the_pipe(monkeypatch, capsys):
    assert (
        pipe(monkeypatch, capsys, Parrot("one\n", "two\n\nthree"), b"hi\nyou\n")
        == "one two  three\n" * 2
    )


class Endless(io.RawIOBase):
    """A pipe that never ends."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.num_read = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        buffer[:] = (self.content * len(buffer))[: len(buffer)]
        self.num_read += len(buffer)
        return len(buffer)


def test_of_a_line_without_end_only_so_much_is_read_as_shows_it(monkeypatch, capsys):
    endless, parrot = Endless(b"a"), cast(Any, Parrot("ok"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(endless)))
    with pytest.raises(DataError, match=r"^<stdin>:1: the line is longer than 1,048,576 bytes$"):
        answer_lines(parrot, as_json=False, is_quiet=False)
    assert endless.num_read < 2**21
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("as_json", [False, True])
def test_lines_without_end_end_with_the_conversation(monkeypatch, capsys, as_json):
    monkeypatch.setattr("convo_cli.chat.conversation.MAX_CHARACTERS", 5000)
    generator: Any = SimpleNamespace(
        encoder=SimpleNamespace(max_length=8),
        stream=lambda history, settings, on_text, seed, index: Reply("yes", (1,), True, 0),
    )
    endless = Endless(b"hello\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(endless)))
    with pytest.raises(
        DataError, match=r"^<stdin>:\d+: the conversation is longer than 5,000 characters"
    ):
        answer_lines(ChatSession(generator, GenerationSettings()), as_json=as_json, is_quiet=True)
    assert endless.num_read < 100_000
    assert len(capsys.readouterr().out) < 5000


def test_an_error_names_the_line_of_the_pipe(monkeypatch, capsys):
    class Deaf(Parrot):
        def say(self, text, on_text):
            if "long" in text:
                raise DataError("the last message is too long", hint="shorten it")
            return super().say(text, on_text)

    with pytest.raises(DataError, match=r"^<stdin>:3: the last message is too long$"):
        pipe(monkeypatch, capsys, Deaf("ok"), b"hi\n\nlong\n")
    assert capsys.readouterr().out == "ok\n"


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
