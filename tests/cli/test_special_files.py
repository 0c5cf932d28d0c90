"""Special files are never replaced, read twice or waited for: with the real executable."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import threading

import pytest

from tests.commands import (
    EXECUTABLE,
    environment,
    make_workplace,
    run_here,
    run_process,
    settings,
    start,
)
from tests.special_files import SPECIAL_FILES

CONVO = shlex.quote(str(EXECUTABLE))
DATA = b'["Hello", "Hi!"]\n["Bye", "See you."]\n'


@pytest.fixture
def folder(tmp_path):
    make_workplace(tmp_path)
    (tmp_path / "data.jsonl").write_bytes(DATA)
    return tmp_path


@pytest.mark.parametrize("kind", SPECIAL_FILES)
@pytest.mark.parametrize(
    "command",
    [
        ["validate-data", "data.jsonl", "--fix", "special", "--force"],
        ["validate-data", "data.jsonl", "--fix", "special"],
        ["init-config", "-o", "special", "--force"],
        ["export", "runs/tiny", "special", "--force"],
    ],
    ids=["fix by force", "fix", "init-config", "export"],
)
def test_a_writer_replaces_nothing_but_a_regular_file(work, kind, command):
    if (command[0], kind) == ("export", "a directory"):
        pytest.skip("an export is a directory")
    (work / "data.jsonl").write_bytes(DATA)
    SPECIAL_FILES[kind](work / "special")
    before = (work / "special").lstat()
    result = run_here(work, *command)
    after = (work / "special").lstat()
    assert result.code == 2
    assert kind.removesuffix(" (FIFO)") in result.err
    assert (before.st_mode, before.st_ino, before.st_rdev) == (
        after.st_mode,
        after.st_ino,
        after.st_rdev,
    )
    assert not list(work.glob(".tmp-*"))


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl", "last.json"])
@pytest.mark.parametrize("kind", ["a pipe (FIFO)", "a symbolic link"])
def test_a_run_writes_into_no_other_kind_of_file(convo, work, name, kind):
    path = work / "runs/tiny" / name
    path.unlink()
    SPECIAL_FILES[kind](path)
    before = path.lstat()
    result = convo("resume", "runs/tiny", "--allow-changed", *settings("training.max_steps=8"))
    assert result.code == 7
    assert f"{name}: not a regular file, but {kind}" in result.err
    assert path.lstat().st_ino == before.st_ino


def test_a_run_is_not_resumed_from_a_pipe(convo, work):
    path = work / "runs/tiny/run.json"
    path.unlink()
    os.mkfifo(path)
    result = convo("resume", "runs/tiny")
    assert result.code == 5
    assert "run.json: cannot be read (it is a pipe (FIFO))" in result.err


READERS = {
    "train": ["train", "config.yaml", *settings("data.train=special", "name=other")],
    "train, validation": [
        "train",
        "config.yaml",
        *settings("data.validation=special", "name=other"),
    ],
    "validate-data --config": ["validate-data", "special", "--config", "config.yaml"],
    "validate-data --fix": ["validate-data", "special", "--fix", "out.jsonl"],
    "validate-data --tokenizer": ["validate-data", "special", "--tokenizer", "exports/tiny"],
    "resume": ["resume", "runs/tiny", *settings("data.train=special")],
    "evaluate": ["evaluate", "exports/tiny", "special"],
}


@pytest.mark.parametrize("kind", ["a pipe (FIFO)", "a socket", "a device"])
@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_data_that_is_read_twice_is_a_file(work, command, kind):
    SPECIAL_FILES[kind](work / "special")
    result = run_here(work, *command)
    assert result.code == 2
    assert f"special is {kind}" in result.err
    assert "hint: " in result.err
    assert not (work / "runs/other").exists()
    assert not (work / "out.jsonl").exists()


def test_a_link_to_a_file_is_as_good_as_the_file(work):
    (work / "data.jsonl").write_bytes(DATA)
    (work / "special").symlink_to("data.jsonl")
    for name in ("validate-data --config", "validate-data --fix", "evaluate"):
        assert run_here(work, *READERS[name]).code == 0


def test_validation_reads_a_pipe_once(folder):
    os.mkfifo(folder / "pipe")
    threading.Thread(target=(folder / "pipe").write_bytes, args=(DATA,), daemon=True).start()
    result = run_process(folder, "validate-data", "pipe", "--json", timeout=60)
    assert (result.code, result.json["files"][0]["num_dialogues"]) == (0, 2)
    result = run_process(folder, "validate-data", "pipe", "pipe", timeout=60)
    assert (result.code, "pipe is given twice" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("validate-data <(cat data.jsonl) <(cat train.jsonl) --json", 0),
        ("cat data.jsonl | {} validate-data /dev/stdin --json", 0),
        ("validate-data /dev/stdin --json < data.jsonl", 0),
        ("validate-data <(gzip -c data.jsonl) --json", 3),
    ],
)
def test_validation_reads_what_another_command_writes(folder, arguments, code):
    command = arguments.format(CONVO) if "{}" in arguments else f"{CONVO} {arguments}"
    process = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, timeout=60
    )
    assert process.returncode == code, process.stderr
    report = json.loads(process.stdout)["files"][0]
    assert report["num_dialogues"] == (2 if code == 0 else 0)
    assert [group["code"] for group in report["problem_groups"]] == (
        ["wrong-compression"] if code else []
    )


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/urandom"])
def test_a_device_is_refused_at_once(folder, device):
    for command in (
        ["validate-data", device],
        ["train", "config.yaml", *settings(f"data.train={device}")],
    ):
        result = run_process(folder, *command, timeout=60)
        assert result.code == 2
        assert f"{device} is a device, not a data file\n" in result.err


def test_a_config_may_come_from_another_command(folder):
    (folder / "config.yaml").write_text(
        (folder / "config.yaml").read_text().replace("data:", "data:\n  nonsense: 1")
    )
    command = f"{CONVO} train <(cat config.yaml)"
    process = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, timeout=60
    )
    assert process.returncode == 2
    assert b"data.nonsense: unknown key" in process.stderr


def test_waiting_for_the_writer_of_a_pipe_ends_with_the_first_signal(folder):
    os.mkfifo(folder / "pipe")
    process = start(folder, "validate-data", "pipe")
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) != 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("command", "code"), [("validate-data data.jsonl --fix fixed.jsonl", 0), ("chat nowhere", 2)]
)
def test_a_closed_standard_stream_is_as_good_as_the_null_device(folder, closed, command, code):
    line = f"{CONVO} {command} {closed}"
    process = subprocess.run(
        ["sh", "-c", line], cwd=folder, env=environment(), capture_output=True, timeout=60
    )
    assert (process.returncode, b"Traceback" in process.stderr) == (code, False), process.stderr
    if code == 0:
        assert (folder / "fixed.jsonl").read_bytes() == DATA
