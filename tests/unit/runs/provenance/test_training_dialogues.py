"""Hashes of the training dialogues: counted exactly, kept by resumes, and damage has a name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convo_cli.errors import CheckpointError, DiskError
from convo_cli.events import Notice
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.provenance.training_dialogues import (
    read_training_dialogues,
    record_training_dialogues,
)

FINGERPRINTS = st.lists(st.integers(0, 2**64 - 1), max_size=40)


def array(*numbers):
    return np.array(numbers, np.uint64)


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


@given(trained=FINGERPRINTS, more=FINGERPRINTS, others=FINGERPRINTS)
def test_exactly_the_recorded_dialogues_are_counted(tmp_path_factory, trained, more, others):
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    for part in (trained, more):
        record_training_dialogues(run, array(*part), run, lambda event: None)
    known = read_training_dialogues(run)
    assert known.count(array(*trained, *more)) == len(trained) + len(more)
    scored = [*others, *trained[:3], *trained[:1]]
    assert known.count(array(*scored)) == sum(one in {*trained, *more} for one in scored)
    num = len({*trained, *more})
    assert run.training_dialogues.stat().st_size == 16 + 16 + 16 * num + 32


def test_no_hash_says_what_it_is_of_and_two_runs_have_none_in_common(tmp_path, ignore):
    known = []
    for name in "ab":
        run = RunDirectory(tmp_path / name)
        run.path.mkdir()
        record_training_dialogues(run, array(1, 2**63), run, ignore)
        known.append(read_training_dialogues(run))
        assert (2**63).to_bytes(8, "little") not in run.training_dialogues.read_bytes()
    assert not set(known[0].hashes) & set(known[1].hashes)


def test_a_fork_has_the_dialogues_of_its_parent_and_its_own(tmp_path, ignore):
    parent, fork = RunDirectory(tmp_path / "parent"), RunDirectory(tmp_path / "fork")
    for run, number in ((parent, 1), (fork, 2)):
        run.path.mkdir()
        record_training_dialogues(run, array(number), parent, ignore)
    assert read_training_dialogues(parent).count(array(1, 2)) == 1
    assert read_training_dialogues(fork).count(array(1, 2, 3)) == 2


def test_the_same_data_again_writes_nothing(run, ignore):
    record_training_dialogues(run, array(1, 2), run, ignore)
    before = run.training_dialogues.stat().st_mtime_ns, run.training_dialogues.stat().st_ino
    record_training_dialogues(run, array(2, 1, 1), run, ignore)
    after = run.training_dialogues.stat().st_mtime_ns, run.training_dialogues.stat().st_ino
    assert before == after


def test_a_run_without_the_file_is_no_error(run):
    assert read_training_dialogues(run) is None


def damaged(content):
    yield b""
    yield content[:-1]
    yield content[:40]
    yield content + b"\0"
    yield content[:-48] + content[-32:]
    for place in (0, 20, 40, len(content) - 1):
        yield content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_any_damage_is_named_and_a_resume_writes_the_file_again(run, ignore):
    record_training_dialogues(run, array(1, 2), run, ignore)
    whole = run.training_dialogues.read_bytes()
    for content in damaged(whole):
        run.training_dialogues.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"training-dialogues\.hashes: damaged"):
            read_training_dialogues(run)
        seen = []
        record_training_dialogues(run, array(1, 2), run, seen.append)
        (notice,) = seen
        assert isinstance(notice, Notice)
        assert notice.is_warning
        assert read_training_dialogues(run).count(array(1, 2, 3)) == 2


def test_a_link_is_neither_read_nor_replaced(run, ignore):
    target = run.path / "target"
    target.write_bytes(b"kept")
    run.training_dialogues.symlink_to(target)
    with pytest.raises(CheckpointError, match="symbolic link"):
        read_training_dialogues(run)
    with pytest.raises(DiskError, match="symbolic link"):
        record_training_dialogues(run, array(1), run, ignore)
    assert target.read_bytes() == b"kept"
