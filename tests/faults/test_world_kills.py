"""One of two ranks is killed, or its disk fails, anywhere in a save: all end, and nothing is lost.

A resume on as many devices then ends with the same bits, and one on a single device with the same
weights except for rounding; so dropout is off, and AdamW's epsilon is 1e-4, as in tests/laws.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from convo_cli.runs.directory import RunDirectory
from convo_cli.storage.sealed import verify_directory
from tests.commands import settings
from tests.faults.harness import (
    RUN,
    Ended,
    Zygote,
    copy_of,
    fault,
    operations,
    prepare,
    report_on,
    sample,
)
from tests.worlds import weights

TRAIN = [
    "train", "config.yaml", "-q", "--devices", 2,
    *settings("training.max_steps=1", "training.schedule_steps=2", "training.epsilon=1e-4"),
    *settings("model.scratch.dropout=0", "data.validation=[]", "training.warmup_steps=0"),
]  # fmt: skip
GO_ON = ["resume", RUN, "-q", *settings("training.max_steps=2")]
pytestmark = pytest.mark.slow  # a case takes three commands
Weights = dict[str, torch.Tensor]
SAMPLED = int(os.environ.get("CONVO_TEST_OPERATIONS", "0"))
"""Number of operations that each test tries; all of them if 0."""


@pytest.fixture(scope="module")
def one_step(convo: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The first step of a run of two ranks, by sharding. Copy it."""
    home, known = tmp_path_factory.mktemp("worlds"), dict[str, Path]()

    def make(sharding: str) -> Path:
        if sharding not in known:
            folder = prepare(home / sharding)
            ended = convo(folder, *TRAIN, *settings(f"training.sharding={sharding}"), num_ranks=2)
            assert ended.code == 0, ended
            known[sharding] = folder
        return known[sharding]

    return make


def check_whole(folder: Path) -> None:
    run = RunDirectory(folder / RUN)
    assert 1 in run.checkpoint_steps()
    for step in run.checkpoint_steps():
        verify_directory(run.checkpoint(step))


def check_message(ended: Ended, folder: Path, rank: int) -> None:
    """Assert that there is one error, which names the rank, its host and the restart."""
    assert "Traceback" not in ended.err, ended
    assert f"\n{ended.err}".count("\nerror: ") == 1, ended
    assert f"rank {rank} on {socket.gethostname()}" in ended.err, ended
    assert f"convo resume {RUN}" in ended.err, ended


def check_resume(convo: Zygote, folder: Path, num_ranks: int, expected: Weights) -> None:
    ended = convo(folder, *GO_ON, "--devices", num_ranks, num_ranks=num_ranks)
    assert ended.code == 0, ended
    check_whole(folder)
    found = weights(folder / RUN, 2)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        far = torch.linalg.vector_norm(found[name] - tensor)
        assert far <= (0 if num_ranks == 2 else 1e-4) * torch.linalg.vector_norm(tensor), name
    hidden = [path.name for path in (folder / RUN).rglob(".*") if path.name != ".lock"]
    assert not hidden, hidden


def fail_at_each(
    convo: Zygote,
    base: Path,
    tmp_path: Path,
    at: int,
    victim: int,
    action: str,
    number: int,
    check: Callable[[Ended, Path], None],
) -> None:
    """Let rank ``at`` meet a fault at each operation of the second step's save.

    A signal goes to rank ``victim``. Two devices and one device resume in turn.
    """
    ranks = {"FAULT_RANK": str(at), "FAULT_VICTIM": str(victim)}
    whole = copy_of(base, tmp_path / "whole")
    assert convo(whole, *GO_ON, env={**fault(whole / RUN), **ranks}, num_ranks=2).code == 0
    expected, chosen = weights(whole / RUN, 2), operations(whole / RUN)
    print(f"{len(chosen)} operations")
    if SAMPLED:
        chosen = sample(chosen, SAMPLED)
    failures: dict[str, str] = {}
    codes, slowest = Counter[int](), 0.0
    for turn, operation in enumerate(chosen):
        folder = copy_of(base, tmp_path / "work")
        injected = {**fault(folder / RUN, action, operation.number, number=number), **ranks}
        where = f"{operation.number} {operation.kind} {operation.path.removeprefix(str(whole))}"
        try:
            ended = convo(folder, *GO_ON, env=injected, num_ranks=2)
            begun = (folder / "runs/operations.log").stat().st_mtime
            codes[ended.code] += 1
            slowest = max(slowest, time.time() - begun)
            check_whole(folder)
            check(ended, folder)
            check_resume(convo, folder, 2 - turn % 2, expected)
        except Exception as error:  # noqa: BLE001 - all are reported together
            failures[where] = repr(error)
        shutil.rmtree(folder)
    print(json.dumps({"at": at, "victim": victim, "action": action, "number": number}))
    print(f"exit codes {dict(codes)}, the slowest end {slowest:.1f} s after the fault")
    report_on(failures, len(chosen))


@pytest.mark.parametrize(
    ("sharding", "at", "victim"),
    [
        ("none", 0, 0),
        ("none", 0, 1),
        ("full", 0, 0),
        ("full", 0, 1),
        ("full", 1, 1),
        ("full", 1, 0),
    ],
)
def test_a_rank_killed_in_a_save_ends_all_and_a_resume_ends_the_same(
    convo, one_step, tmp_path, sharding, at, victim
):
    def check(ended: Ended, folder: Path) -> None:
        assert ended.code == 128 + signal.SIGKILL, ended
        check_message(ended, folder, victim)

    fail_at_each(convo, one_step(sharding), tmp_path, at, victim, "signal", signal.SIGKILL, check)


@pytest.mark.parametrize("name", ["ENOSPC", "EIO"])
@pytest.mark.parametrize(("sharding", "at"), [("none", 0), ("full", 0), ("full", 1)])
def test_a_disk_that_fails_in_one_rank_ends_all_and_a_resume_ends_the_same(
    convo, one_step, tmp_path, sharding, at, name
):
    number = getattr(errno, name)

    def check(ended: Ended, folder: Path) -> None:
        assert "Traceback" not in ended.err, ended
        if ended.code != 0:
            assert ended.code == 7, ended
            assert f"\n{ended.err}".count("\nerror: ") == 1, ended
            assert os.strerror(number) in ended.err, ended
            if at > 0:
                assert f"rank {at} on {socket.gethostname()}" in ended.err, ended

    fail_at_each(convo, one_step(sharding), tmp_path, at, at, "fail-on", number, check)
