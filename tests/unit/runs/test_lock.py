"""One process at a time uses a run directory; a killed process holds no lock."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from convo_cli.errors import CheckpointError, DiskError
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.lock import is_in_use, locked

HOLD = """
import sys
from pathlib import Path
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.lock import locked
with locked(RunDirectory(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holding(run: RunDirectory) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


def test_the_second_process_is_refused_by_the_name_of_the_run(run):
    with another_process_holding(run) as process:
        for _ in range(2):  # the first attempt must not erase the holder
            with pytest.raises(CheckpointError) as caught, locked(run):
                pass
            holder = f"process {process.pid} on {socket.gethostname()}"
            assert caught.value.message == f"{run.path}: {holder} is using this run directory"
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    "text", [b"", b"\xff\n", b"process 1 on \x1b[31mred\n", b"process 1 on a" + b"a" * 999]
)
def test_a_text_that_convo_did_not_write_is_not_shown(run, text):
    message = "another process is using this run directory"
    with another_process_holding(run):
        run.lock.write_bytes(text)
        with pytest.raises(CheckpointError, match=message), locked(run):
            pass


def test_a_killed_process_frees_the_lock(run):
    with another_process_holding(run) as process:
        process.kill()
        process.wait()
        assert str(process.pid) in run.lock.read_text()
        with locked(run):
            assert run.lock.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


def test_a_run_is_in_use_while_a_living_process_holds_it(run):
    assert not is_in_use(run)
    with locked(run):
        assert is_in_use(run)
    assert not is_in_use(run)
    with another_process_holding(run) as process:
        assert is_in_use(run)
        process.kill()
        process.wait()
        assert not is_in_use(run)
    run.lock.write_text("process 1 on another-machine\n")
    assert is_in_use(run)
    run.lock.write_text("nonsense")
    assert not is_in_use(run)


def test_a_longer_text_that_was_left_over_is_replaced_whole(run):
    run.lock.write_text("process 1 on " + "a" * 200 + "\n")
    with locked(run):
        assert run.lock.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP], ids=errno.errorcode.get
)
def test_a_file_system_without_locks_is_named_as_such(run, monkeypatch, number):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(DiskError, match=r"\.lock: this file system cannot lock files") as caught,
        locked(run),
    ):
        pass
    assert "on another file system" in str(caught.value.hint)


def test_a_lock_that_is_a_link_is_not_followed(run, tmp_path):
    (tmp_path / "precious").write_text("mine")
    run.lock.symlink_to(tmp_path / "precious")
    with pytest.raises(DiskError, match=r"\.lock: "), locked(run):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_run_whose_checkpoints_lie_elsewhere_is_not_worked_in(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    run.checkpoints.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(CheckpointError, match="checkpoints: a symbolic link"), locked(run):
        pass
    run.checkpoints.unlink()
    with locked(run):
        pass


def test_the_lock_is_free_after_the_block_also_where_it_raises(run):
    with pytest.raises(ZeroDivisionError), locked(run):
        raise ZeroDivisionError
    assert run.lock.read_text() == "", "and tells of nobody"
    with locked(run):
        assert run.lock.is_file()


def test_a_lock_goes_with_its_run_directory_when_that_is_renamed(tmp_path):
    run = RunDirectory(tmp_path / "aside")
    run.path.mkdir()
    moved = RunDirectory(tmp_path / "convo")
    with locked(run):
        run.path.rename(moved.path)
        with pytest.raises(CheckpointError, match=f"process {os.getpid()} on"), locked(moved):
            pass
    assert moved.lock.read_text() == ""
    with locked(moved):
        pass


def test_a_lock_that_cannot_be_made_is_an_error_of_the_disk(tmp_path):
    run = RunDirectory(tmp_path)
    run.lock.mkdir()
    with pytest.raises(DiskError, match=r"\.lock: Is a directory"), locked(run):
        pass


def test_a_lock_file_that_cannot_be_opened_is_a_disk_error_and_holds_nothing(run, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("convo_cli.runs.lock.open", fail, raising=False)
        with pytest.raises(DiskError, match=r"\.lock: Input/output error"), locked(run):
            pass
    with locked(run):
        pass
