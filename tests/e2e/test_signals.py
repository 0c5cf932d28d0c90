"""Signals and a second process, sent to the real executable, or to a fork, while it trains."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import threading
import time
from pathlib import Path

import pytest

from convo_cli.runs.directory import RunDirectory
from convo_cli.storage.sealed import file_sha256
from tests.cases import quick_first
from tests.commands import make_workplace, run_here, settings, snapshot, start
from tests.forks import start_fork

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
RUN, STEPS = "my runs/tiny", 40
LONG = settings(
    "output_dir=my runs", f"training.max_steps={STEPS}", "data.validation=[]",
    "checkpoints.every_steps=25",
)  # fmt: skip
STOPS = quick_first([(signal.SIGTERM, 143), (signal.SIGINT, 130)])


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The weights of a run that was never stopped."""
    folder = make_workplace(tmp_path_factory.mktemp("signals"))
    assert (
        run_here(folder, "train", "config.yaml", "-q", *settings("name=straight"), *LONG).code == 0
    )
    return weights(folder / "my runs/straight")


def weights(run):
    return file_sha256(RunDirectory(run).checkpoint(STEPS) / "model.safetensors")


def until(process, pattern):
    """Read the process's stderr to the first line that matches, and return what was read."""
    seen = []
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    try:
        for raw in process.stderr:
            seen.append(raw.decode())
            if re.search(pattern, seen[-1]):
                return seen
    finally:
        watchdog.cancel()
    raise AssertionError(f"never said {pattern}: {''.join(seen)}")


@pytest.mark.parametrize(("number", "code"), STOPS)
def test_a_stopped_run_is_saved_and_ends_as_if_it_had_not_been_stopped(
    straight, tmp_path, number, code
):
    make_workplace(tmp_path)
    process = start(tmp_path, "train", "config.yaml", *LONG)
    try:
        seen = until(process, r"^step 5/")
        process.send_signal(signal.SIGSTOP)
        refused = run_here(tmp_path, "resume", RUN)
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        out, rest = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (refused.code, refused.out) == (5, "")
    assert f"error: {RUN}: process {process.pid} on " in refused.err

    err = "".join(seen) + rest.decode()
    assert (process.returncode, out) == (code, b"")
    assert "Traceback" not in err
    assert "[transformers]" not in err
    assert "error" not in err
    assert "finished" not in err
    answer = re.search(
        r"^(SIGTERM: )?stopping after [^;\n]*(; press Ctrl-C again)?", err, re.MULTILINE
    )
    assert answer, err
    assert [part is not None for part in answer.groups()] == [code == 143, code == 130]
    stopped = re.search(
        rf"^stopped after step (\d+) of {STEPS}; the run is saved\nhint: (.*)\n\Z",
        err,
        re.MULTILINE,
    )
    assert stopped, err
    assert RunDirectory(tmp_path / RUN).checkpoint_steps()[-1] == int(stopped[1]) < STEPS
    assert run_here(tmp_path, *shlex.split(stopped[2])[1:], "-q").code == 0
    assert weights(tmp_path / RUN) == straight


def test_a_second_signal_leaves_at_once_and_tears_nothing(straight, tmp_path):
    make_workplace(tmp_path)
    process = start_fork(tmp_path, "train", "config.yaml", *LONG)
    try:
        until(process, r"^step 5/")
        process.send_signal(signal.SIGSTOP)
        for number in (signal.SIGTERM, signal.SIGINT):
            process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode in (130, 143)
    assert (out, b"Traceback" in err) == (b"", False)
    assert run_here(tmp_path, "resume", RUN, "-q").code == 0
    assert weights(tmp_path / RUN) == straight


def test_a_signal_while_the_data_is_prepared_begins_no_run_and_the_next_one_uses_what_is_there(
    tmp_path,
):
    make_workplace(tmp_path)
    process = start_fork(tmp_path, "train", "config.yaml", *LONG)
    try:
        until(process, "^the vocabulary has")
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err
    assert b"no run was created" in err
    assert [path.name for path in (tmp_path / RUN).parent.iterdir()] == [".convo-cache"]
    assert (
        run_here(
            tmp_path, "train", "config.yaml", "-q", *LONG, *settings("training.max_steps=2")
        ).code
        == 0
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see the handler")
def test_a_signal_before_torch_is_imported_ends_with_a_message_and_leaves_nothing(tmp_path):
    make_workplace(tmp_path)
    before = snapshot(tmp_path)
    process = start(tmp_path, "train", "config.yaml", *LONG)
    try:
        while not catches(process.pid, signal.SIGTERM):
            time.sleep(0.01)
        assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, out) == (143, b"")
    assert re.search(rb"^stopped( before the first step; no run was created)?$", err, re.MULTILINE)
    assert snapshot(tmp_path) == before


def catches(pid, number):
    caught = re.search(
        r"^SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
    )
    return bool(int(caught[1], 16) >> (number - 1) & 1)


@pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="Linux says which libraries a process has opened"
)
def test_a_signal_does_not_wait_until_torch_is_imported(tmp_path):
    make_workplace(tmp_path)
    process = start(tmp_path, "train", "config.yaml", *LONG)
    try:
        maps, deadline = Path(f"/proc/{process.pid}/maps"), time.monotonic() + 60
        while "libtorch" not in maps.read_text(encoding="utf-8") and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    stopped = "stopped before the first step; no run was created\nhint: run the command again\n"
    assert (process.returncode, out) == (143, b"")
    assert re.sub(r"^(starting|SIGTERM:) .*\n", "", err.decode(), flags=re.MULTILINE) == stopped


@pytest.mark.parametrize(("number", "code"), STOPS)
def test_validation_by_several_processes_ends_at_once_with_one_word(tmp_path, number, code):
    """The data comes through a pipe that stays open, so the command is still reading."""
    process = start(tmp_path, "validate-data", "-")
    line = b'["Hello there, how are you today?", "Fine, and you?"]\n'
    process.stdin.write(line * (40 * 2**20 // len(line)))
    process.stdin.flush()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err.splitlines()[-1]) == (code, b"", b"stopped")


def test_ctrl_c_is_heard_while_the_tokenizer_is_trained(tmp_path):
    """SentencePiece holds Python's lock for many seconds here, in its own process."""
    make_workplace(tmp_path)
    words = [f"w{number * 7919 % 99991}x{number % 977}" for number in range(120_000)]
    lines = [
        json.dumps([" ".join(words[at : at + 40]), "ok"]) + "\n" for at in range(0, len(words), 40)
    ]
    (tmp_path / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    process = start_fork(
        tmp_path, "train", "config.yaml", *LONG, *settings("tokenizer.vocab_size=20000")
    )
    try:
        until(process, "^training the tokenizer")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, b"")
    assert err.endswith(
        b"stopped before the first step; no run was created\nhint: run the command again\n"
    )
