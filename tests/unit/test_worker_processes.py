"""Worker processes: results in order, whatever happens to the workers, and no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from convo_cli.worker_processes import call_in_workers

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


def square(number):
    return number * number, os.getpid()


def fail_at_three(number):
    if number == 3:
        raise ZeroDivisionError(number)
    return number


def die_in_a_worker(pair):
    number, parent = pair
    if number == 2 and os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def sleep(seconds):
    time.sleep(seconds)
    return seconds


def print_much(number):
    print("x" * 100_000)
    os.write(1, b"y")
    return number


@pytest.mark.parametrize("number", [1, 3])
def test_results_come_in_order_from_other_processes(number):
    found = list(call_in_workers(square, range(20), number))
    assert [one for one, _ in found] == [k * k for k in range(20)]
    workers = {process for _, process in found}
    assert os.getpid() not in workers
    assert len(workers) <= number


def test_an_error_comes_in_its_place():
    taken = []
    with pytest.raises(ZeroDivisionError, match="3"):
        taken.extend(call_in_workers(fail_at_three, range(6), 2))
    assert taken == [0, 1, 2]


def test_a_killed_worker_changes_no_result():
    arguments = [(number, os.getpid()) for number in range(8)]
    assert list(call_in_workers(die_in_a_worker, arguments, 2)) == list(range(8))


def test_a_function_that_prints_does_not_touch_the_answers():
    assert list(call_in_workers(print_much, range(4), 2)) == list(range(4))


def test_arguments_are_read_a_few_ahead():
    asked = []

    def arguments():
        for number in range(50):
            asked.append(number)
            yield number

    with closing(call_in_workers(square, arguments(), 2)) as results:
        next(results)
        assert len(asked) <= 6


def test_a_system_that_starts_no_process_changes_no_result(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert [one for one, _ in call_in_workers(square, range(5), 2)] == [0, 1, 4, 9, 16]


def test_a_function_that_cannot_be_copied_is_called_here():
    assert list(call_in_workers(lambda number: number, range(5), 2)) == [0, 1, 2, 3, 4]


def test_closing_ends_the_workers_at_once():
    results = call_in_workers(sleep, [0, 60, 60, 60], 2)
    next(results)
    begun = time.monotonic()
    results.close()
    assert time.monotonic() - begun < 5


PARENT = """
import os, sys
from tests.unit.test_worker_processes import square, sleep
from convo_cli.worker_processes import call_in_workers
results = call_in_workers(square, range(100), 2)
found = {next(results)[1] for _ in range(20)}
print(*found, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_parent(number):
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(root)},
    ) as parent:  # fmt: skip
        assert parent.stdout
        workers = [int(one) for one in parent.stdout.readline().split()]
        assert workers
        parent.send_signal(number)
        parent.wait(30)
    deadline = time.monotonic() + 10
    while any(map(_runs, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
