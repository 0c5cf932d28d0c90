"""One process at a time on a run directory; a process that was killed holds nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from convo_cli.errors import CheckpointError, DiskError
from convo_cli.runs.layout import RunDirectory
from convo_cli.runs.lock import locked

HOLD = """
import sys
from pathlib import Path
from convo_cli.runs.layout import RunDirectory
from convo_cli.runs.lock import locked
with locked(RunDirectory(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holding(run: RunDirectory) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
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
    message = "another process is working in this run directory"
    with another_process_holding(run), pytest.raises(CheckpointError, match=message) as caught, locked(run):
        pass
    assert str(run.path) in caught.value.message
    assert caught.value.exit_code == 5


def test_a_killed_process_frees_the_lock(run):
    with another_process_holding(run) as process:
        process.kill()
        process.wait()
        with locked(run):
            pass


def test_the_lock_is_free_after_the_block_also_where_it_raises(run):
    with pytest.raises(ZeroDivisionError), locked(run):
        raise ZeroDivisionError
    with locked(run):
        assert run.lock.is_file()


def test_a_lock_that_cannot_be_made_is_an_error_of_the_disk(tmp_path):
    run = RunDirectory(tmp_path)
    run.lock.mkdir()
    with pytest.raises(DiskError, match=r"\.lock: Is a directory"), locked(run):
        pass
