"""A reader of the output may disappear: the run ends as it would have."""

from __future__ import annotations

import os
import subprocess

import pytest

from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.event_log import read_metrics
from tests.commands import EXECUTABLE, environment, make_workplace, settings
from tests.forks import start_fork

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX pipes")
SHORT = settings("training.max_steps=2", "data.validation=[]")


def run_in_pipes(folder, *arguments, is_stdout_closed):
    """Run a command with a stderr that is closed after its first line; stdout may share it."""
    reading, writing = os.pipe()
    stdout = writing if is_stdout_closed else subprocess.PIPE
    with start_fork(folder, *arguments, stdin=None, stdout=stdout, stderr=writing) as process:
        os.close(writing)
        try:
            os.read(reading, 1)
            os.close(reading)
            out, _ = process.communicate(timeout=120)
        finally:
            process.kill()
    return process.returncode, out


@pytest.mark.parametrize(
    ("is_stdout_closed", "expected"), [(False, (0, b"runs/tiny\n")), (True, (141, None))]
)
def test_a_run_goes_on_to_its_end_when_its_reader_is_gone(tmp_path, is_stdout_closed, expected):
    make_workplace(tmp_path)
    assert (
        run_in_pipes(tmp_path, "train", "config.yaml", *SHORT, is_stdout_closed=is_stdout_closed)
        == expected
    )
    run = RunDirectory(tmp_path / "runs/tiny")
    assert run.checkpoint_steps()[-1] == 2
    assert [record["event"] for record in read_metrics(run.metrics)][-1] == "run_finished"


def test_a_mistake_keeps_its_exit_code_when_nobody_reads_the_message(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    command = [str(EXECUTABLE), "train", "nowhere.yaml"]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment(), stdout=writing, stderr=writing, check=False
    )
    os.close(writing)
    assert ran.returncode == 2
