"""A run directory appears whole or not at all, however its process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from convo_cli.errors import CheckpointError
from convo_cli.runs.begin import begun
from convo_cli.runs.directory import RunDirectory, require_new
from convo_cli.runs.lock import locked

NEW = ".convo-new-tiny"
KILLED = """
import os, signal, sys
from pathlib import Path
from convo_cli.runs import begin
from convo_cli.runs.directory import RunDirectory, require_new

def die(*arguments, **folders):
    os.kill(os.getpid(), signal.SIGKILL)

def fill(aside):
    (aside.path / "config.yaml").write_text("old")
    (aside.checkpoints / "step-00000000").mkdir()
    (aside.checkpoints / "step-00000000" / "half").write_text("half")
    if sys.argv[2] == "while it is filled":
        die()

if sys.argv[2] == "before it takes its place":
    os.rename = die
if sys.argv[2] == "after it took its place":
    begin.sync_directory = die
with begin.begun(RunDirectory(Path(sys.argv[1])), fill):
    print("not reached")
"""


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "runs" / "tiny")


def fill(aside):
    aside.config.write_text("new")


def kill(run, when):
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, str(run.path), when], capture_output=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (-signal.SIGKILL, b""), ran.stderr


def test_nothing_is_there_while_it_is_filled_and_all_of_it_afterwards(run):
    def look(aside):
        fill(aside)
        assert not run.path.exists()
        assert aside.path.parent == run.path.parent

    with begun(run, look):
        assert {path.name for path in run.path.iterdir()} == {".lock", "checkpoints", "config.yaml"}
        assert os.listdir(run.path.parent) == ["tiny"]


def test_its_lock_is_held_from_before_it_is_there_to_the_end_of_the_block(run):
    with (
        begun(run, fill),
        pytest.raises(CheckpointError, match="is using this run directory"),
        locked(run),
    ):
        pass
    with locked(run):
        pass


def test_what_cannot_be_filled_leaves_nothing(run):
    def fail(aside):
        fill(aside)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), begun(run, fail):
        pass
    assert os.listdir(run.path.parent) == []


@pytest.mark.parametrize("when", ["while it is filled", "before it takes its place"])
def test_after_a_kill_before_it_is_there_the_next_one_begins_anew(run, when):
    kill(run, when)
    assert os.listdir(run.path.parent) == [NEW]
    with begun(run, fill):
        assert run.config.read_text() == "new"
        assert list(run.checkpoints.iterdir()) == []
    assert os.listdir(run.path.parent) == ["tiny"]


def test_after_a_kill_when_it_took_its_place_it_is_there_whole(run):
    kill(run, "after it took its place")
    assert run.config.read_text() == "old"
    assert run.checkpoint_steps() == [0]
    assert os.listdir(run.path.parent) == ["tiny"]


def test_two_beginnings_of_one_name_do_not_meet(run):
    def begin_again(aside):
        with (
            pytest.raises(CheckpointError, match=r"\.convo-new-tiny: .* is using"),
            begun(run, fill),
        ):
            pass
        fill(aside)

    with begun(run, begin_again):
        assert run.config.read_text() == "new"


def test_a_run_that_came_meanwhile_stays(run):
    def meanwhile(aside):
        run.path.mkdir()
        run.config.write_text("theirs")

    with pytest.raises(CheckpointError, match="tiny: already exists"), begun(run, meanwhile):
        pass
    assert run.config.read_text() == "theirs"
    assert os.listdir(run.path.parent) == ["tiny"]


def test_nothing_is_cleared_through_a_link(run, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    run.path.parent.mkdir()
    (run.path.parent / NEW).symlink_to(mine)
    with (
        pytest.raises(CheckpointError, match="a symbolic link, so no run can be created there"),
        begun(run, fill),
    ):
        pass
    (run.path.parent / NEW).unlink()
    (run.path.parent / NEW).mkdir()
    (run.path.parent / NEW / "link").symlink_to(mine)
    with begun(run, fill):
        assert not (run.path / "link").exists()
    assert (mine / "thesis.txt").exists()


def test_a_link_where_a_run_begins_is_refused_before_any_work(run, tmp_path):
    run.path.parent.mkdir()
    (tmp_path / "mine").mkdir()
    for target in (tmp_path / "nothing", tmp_path / "mine"):
        run.path.symlink_to(target)
        with pytest.raises(
            CheckpointError, match="tiny: a symbolic link, so no run can be created there"
        ):
            require_new(run)
        run.path.unlink()


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives a folder to another user"
)
def test_no_run_begins_in_a_folder_of_another_user(run):
    aside = run.path.parent / NEW
    aside.mkdir(parents=True)
    os.chown(aside, 65534, 65534)
    with (
        pytest.raises(CheckpointError, match="belongs to another user") as caught,
        begun(run, fill),
    ):
        pass
    assert "--set name=" in str(caught.value.hint)
    assert list(aside.iterdir()) == []


def test_a_run_that_begins_stays_where_it_began(run, tmp_path):
    """Others may rename things in the folder, so the run is filled by a path that stays with it."""
    run.path.parent.mkdir()
    run.path.parent.chmod(0o777)
    mine = tmp_path / "mine"
    mine.mkdir()

    def swap(aside):
        (run.path.parent / NEW).rename(run.path.parent / "moved")
        (run.path.parent / NEW).symlink_to(mine)
        fill(aside)

    with (
        pytest.raises(CheckpointError, match="another process created a directory there"),
        begun(run, swap),
    ):
        pass
    assert list(mine.iterdir()) == []
