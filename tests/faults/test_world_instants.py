"""A rank or the launcher is killed, or the launcher is asked to stop, at any instant of a run.

No process is left, the run directory is absent or intact, and the next command ends the run with
the bits of an undisturbed one. Instants are lines that the run writes, and states of its processes.
"""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from convo_cli.runs.directory import RunDirectory
from convo_cli.storage.sealed import verify_directory
from tests.commands import environment, settings, start
from tests.faults.harness import RUN, Ended, Outcome, Zygote, outcome, prepare

pytestmark = pytest.mark.slow  # a case takes up to two commands
TRAIN = ["train", "config.yaml", "--devices", 2, *settings("data.test=train.jsonl")]
LINES = {
    "encoding": "encoding training data",
    "first save": "saving the first checkpoint",
    "step": "step 1/",
    "save": "saved step 1 ",
    "evaluation": "evaluating ",
    "replies": "generating replies",
    "test": "scoring the test data",
    "end": "finished at ",
}
INSTANTS = ("meeting", *LINES)
FIRST_RANK, LAST_RANK, LAUNCHER = 0, 1, -1
VICTIMS = {
    "kill rank 0": (FIRST_RANK, signal.SIGKILL),
    "kill rank 1": (LAST_RANK, signal.SIGKILL),
    "kill launcher": (LAUNCHER, signal.SIGKILL),
    "SIGTERM": (LAUNCHER, signal.SIGTERM),
    "SIGINT": (LAUNCHER, signal.SIGINT),
}
SECONDS = 100  # until a case counts as hung


@pytest.fixture(scope="module")
def undisturbed(convo: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = prepare(tmp_path_factory.mktemp("undisturbed") / "work")
    ended = convo(folder, *TRAIN, "-q", num_ranks=2)
    assert ended.code == 0, ended
    return outcome(folder / RUN)


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "hung"
        time.sleep(0.002)


def inside(folder: Path) -> Iterator[psutil.Process]:
    """Yield the processes that work in a folder."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def is_connected(process: psutil.Process) -> bool:
    connections = process.net_connections("tcp")
    return any(one.status == psutil.CONN_ESTABLISHED for one in connections)


def disturb(launcher: psutil.Process, ranks: list[psutil.Process], victim: str) -> float:
    """Send the signal, and return the time."""
    rank, number = VICTIMS[victim]
    (launcher if rank == LAUNCHER else ranks[rank]).send_signal(number)
    return time.monotonic()


def check(ended: Ended, instant: str, victim: str, folder: Path) -> None:
    """Assert that there is one outcome, and that each checkpoint is intact."""
    rank, number = VICTIMS[victim]
    if instant == "end" and ended.code == 0:  # there was nothing left to do
        assert ended.out == f"{RUN}\n", ended
        return
    assert "Traceback" not in ended.err, ended
    errors = re.findall("^error: .*", ended.err, re.MULTILINE)
    if rank != LAUNCHER:
        assert ended.code == 128 + signal.SIGKILL, ended
        assert len(errors) == 1, ended
        assert errors[0].startswith(f"error: rank {rank} on {socket.gethostname()}"), ended
    else:
        assert ended.code == (-number if number == signal.SIGKILL else 128 + number), ended
        assert not errors, ended
    if number != signal.SIGKILL:
        assert len(re.findall("^stopped", ended.err, re.MULTILINE)) == 1, ended
    hints = re.findall("^hint: .*", ended.err, re.MULTILINE)
    if (folder / RUN).exists():
        steps = RunDirectory(folder / RUN).checkpoint_steps()
        assert steps
        for step in steps:
            verify_directory(RunDirectory(folder / RUN).checkpoint(step))
        has_advice = instant != "end" and (number, rank) != (signal.SIGKILL, LAUNCHER)
        assert len(hints) == 1 or not has_advice, ended
    assert all((f"convo resume {RUN}" in hint) == (folder / RUN).exists() for hint in hints), ended


@pytest.mark.parametrize("instant", INSTANTS)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_run_that_is_disturbed_ends_with_all_its_processes_and_can_be_continued(
    convo, undisturbed, tmp_path, instant, victim
):
    folder = prepare(tmp_path / "work")
    convo.err.unlink(missing_ok=True)

    def is_now() -> bool:
        if instant == "meeting":
            ranks = sorted(set(inside(folder)), key=lambda one: one.pid)
            return len(ranks) >= 3 and is_connected(ranks[2])
        return convo.err.exists() and f"\n{LINES[instant]}" in f"\n{convo.err.read_text()}"

    with ThreadPoolExecutor() as threads:
        run = threads.submit(convo, folder, *TRAIN, num_ranks=2)
        until(is_now)
        # The launcher was forked first, then the ranks.
        launcher, *ranks = sorted(inside(folder), key=lambda one: (one.create_time(), one.pid))
        began = disturb(launcher, ranks, victim)
        ended = run.result()
        until(lambda: not list(inside(folder)))
    seconds = time.monotonic() - began
    at = f"{RunDirectory(folder / RUN).checkpoint_steps()}" if (folder / RUN).exists() else "no run"
    print(f"| {instant} | {victim} | {ended.code} | {seconds:.1f} s | {at} |")
    check(ended, instant, victim, folder)

    again = ["resume", RUN] if (folder / RUN).exists() else TRAIN
    ended = convo(folder, *again, "-q", num_ranks=2)
    assert ended.code == 0, ended
    assert outcome(folder / RUN) == undisturbed
    assert RunDirectory(folder / RUN).test.exists()


def is_importing(rank: psutil.Process) -> bool:
    return any("libtorch" in file.path for file in rank.memory_maps())


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("instant", ["processes start", "imports"])
def test_a_run_that_is_disturbed_before_it_has_begun_leaves_nothing(tmp_path, instant, victim):
    folder = prepare(tmp_path / "work")
    process = start(folder, *TRAIN, env=environment(OMP_NUM_THREADS="1"))
    launcher, ranks = psutil.Process(process.pid), []

    def is_now() -> bool:
        with suppress(psutil.Error, KeyError):
            found = {int(one.environ()["RANK"]): one for one in launcher.children()}
            ranks[:] = [found[0], found[1]]
            return instant == "processes start" or is_importing(found[0])
        return False

    until(is_now)
    began = disturb(launcher, ranks, victim)
    out, err = process.communicate(timeout=SECONDS)
    until(lambda: not list(inside(folder)))
    print(f"| {instant} | {victim} | {process.returncode} | {time.monotonic() - began:.1f} s | |")
    check(Ended(process.returncode, out.decode(), err.decode()), instant, victim, folder)
    assert not (folder / RUN).exists()
    assert not list((folder / "runs").glob("[!.]*"))
