"""Background tasks: results in order, errors in their place, and an immediate end by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from threading import Event

import pytest

from convo_cli.background import one_ahead


def test_results_come_in_order_and_an_error_in_its_place():
    def fail():
        raise ZeroDivisionError

    taken = []
    with pytest.raises(ZeroDivisionError):
        taken.extend(one_ahead([lambda: 1, lambda: 2, fail, lambda: pytest.fail("began")]))
    assert taken == [1, 2]
    assert list(one_ahead([])) == []


def test_one_task_runs_ahead_of_the_result_in_use_and_no_more():
    begun, asked = [], []

    def works():
        for number in range(1, 10):
            asked.append(number)
            yield lambda number=number: begun.append(number) or number

    ahead = one_ahead(works())
    assert next(ahead) == 1
    assert next(ahead) == 2
    assert asked == [1, 2, 3]
    assert set(begun) <= {1, 2, 3}


def test_an_exception_of_a_task_is_raised_in_the_main_thread():
    with pytest.raises(ZeroDivisionError):
        list(one_ahead([lambda: 1 // 0]))
    with pytest.raises(TimeoutError, match="of the task"):
        list(one_ahead([lambda: (_ for _ in ()).throw(TimeoutError("of the task"))]))


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.parametrize("before", [[], [lambda: None]])
def test_a_signal_ends_the_wait_and_not_the_task(before):
    released, is_done = Event(), Event()

    def work():
        os.kill(os.getpid(), signal.SIGUSR1)
        released.wait(60)
        is_done.set()

    def stop(number, frame):
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(one_ahead([*before, work]))
    finally:
        signal.signal(signal.SIGUSR1, handler)
    assert not is_done.is_set()
    released.set()
    assert is_done.wait(60)


LEAVING = """
import atexit, io, sys, threading
import sentencepiece
from convo_cli.background import end_process, one_ahead

def lines():
    while True:
        yield "words that have no end"

def train():
    threading.Timer(0.5, lambda: __import__("os").kill(__import__("os").getpid(), 2)).start()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines(), model_writer=io.BytesIO(), vocab_size=50, minloglevel=2
    )

atexit.register(print, "cleaned up")
try:
    list(one_ahead([train]))
except KeyboardInterrupt:
    print("interrupted")
    end_process(130)
"""


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_a_stopped_process_ends_at_once_and_runs_its_exit_functions():
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", LEAVING], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "interrupted\ncleaned up\n", "")
    assert time.monotonic() - began < 30


LEFT = """
import time
from convo_cli.background import _start, end_process
_start(lambda: (time.sleep(0.5), print("done", flush=True)))
end_process(3)
"""


def test_without_a_signal_the_process_ends_when_its_tasks_are_done():
    ran = subprocess.run(
        [sys.executable, "-c", LEFT], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (3, "done\n", "")
