"""The first signal requests a stop, the second one ends the process, and handlers are restored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from convo_cli.errors import StoppedError
from convo_cli.interrupts import Interrupt
from convo_cli.signals import answering, listening

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]

TWICE = """
import os, signal, sys, time
from convo_cli.signals import listening
with listening() as request:
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here", request.signal_number, flush=True)
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(60)
    print("never reached", flush=True)
"""


@pytest.fixture(autouse=True)
def hangups_arrive():
    """SIGHUP arrives as in a terminal, even if these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_remembered_and_nothing_else_happens(number):
    with listening() as request:
        assert not request.is_set
        send(number)
        assert request.is_set
        assert request.signal_number == number


@pytest.mark.parametrize("number", sorted(set(SIGNALS) - {signal.SIGHUP}))
def test_a_second_signal_leaves_at_once_with_its_own_exit_code(number):
    ran = subprocess.run(
        [sys.executable, "-c", TWICE, str(int(number))],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.stdout == f"still here {int(signal.SIGTERM)}\n"
    assert ran.returncode == 128 + number
    assert ran.stderr in ("", "SIGTERM: stopping after this step\n")


HUNG_UP = """
import os, signal, sys, time
from convo_cli.signals import listening
with listening() as request:
    os.kill(os.getpid(), int(sys.argv[1]))
    for _ in range(2):  # from the shell, and from the system when the shell has left
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(0.2)
    print("finished", request.signal_number, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""


@pytest.mark.parametrize("first", SIGNALS)
def test_a_terminal_that_closes_hangs_up_more_than_once_and_the_work_still_ends_in_order(first):
    ran = subprocess.run(
        [sys.executable, "-c", HUNG_UP, str(int(first))],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.stdout == f"finished {int(first)}\n"
    assert ran.returncode == 128 + signal.SIGTERM, "a real second signal leaves"


WAITING = """
from convo_cli.signals import listening
with listening():
    print("ready", flush=True)
    import sqlite3
    sqlite3.connect(":memory:").execute(
        "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    ).fetchone()  # never returns, and Python runs no handler meanwhile
"""


def test_while_native_code_runs_the_first_signal_is_answered_and_the_second_leaves():
    with subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            answer = process.stderr.readline()  # at once: the query never ends
            assert answer == (
                b"stopping after this step; press Ctrl-C again to leave without saving\n"
            )
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 128 + signal.SIGINT
        finally:
            process.kill()


def test_the_handlers_of_before_are_restored_also_where_the_block_raises():
    def mine(number, frame):
        pass

    before = signal.signal(signal.SIGUSR1, mine)
    try:
        others = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        with listening():
            assert signal.getsignal(signal.SIGUSR1) is not mine
        assert signal.getsignal(signal.SIGUSR1) is mine
        with pytest.raises(ZeroDivisionError), listening():
            raise ZeroDivisionError
        assert signal.getsignal(signal.SIGUSR1) is mine
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == others
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_requests_of_one_block_do_not_reach_the_next():
    with listening():
        send(signal.SIGINT)
    with listening() as request:
        assert not request.is_set


def test_a_block_inside_another_shares_its_request_and_leaves_its_handlers():
    with listening() as outer:
        with listening() as inner:
            assert inner is outer
        send(signal.SIGTERM)
        assert outer.signal_number == signal.SIGTERM


def test_work_that_may_be_torn_ends_where_it_is():
    with (
        pytest.raises(StoppedError, match="nothing was begun") as caught,
        listening() as request,
        request.interrupting("nothing was begun", hint="begin again"),
    ):
        pytest.fail(f"went on after {send(signal.SIGTERM)}")
    assert (caught.value.exit_code, caught.value.hint) == (143, "begin again")


SWALLOWED = """
import os, signal, sys, time
from convo_cli.errors import StoppedError
from convo_cli.signals import listening

class Deleted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

class Unfinished:
    def __init__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        self.name = "never set"

    def __del__(self):
        print(self.name)

def swallow():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except:
        pass

def convert():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException as error:
        raise ImportError("damaged") from error

kinds = {"except": swallow, "del": Deleted, "convert": convert, "unfinished": Unfinished}
try:
    with listening() as stop, stop.interrupting("stopped"):
        try:
            kinds[sys.argv[1]]()
            for _ in range(300):
                time.sleep(0.1)
            print("never stopped")
        finally:
            time.sleep(1.5)
            print("cleaned up")
except StoppedError as error:
    print(error)
"""


@pytest.mark.parametrize("where", ["except", "del", "convert", "unfinished"])
def test_a_request_that_library_code_swallows_or_converts_stops_the_work_all_the_same(where):
    """Cleaning up is not interrupted."""
    ran = subprocess.run(
        [sys.executable, "-c", SWALLOWED, where], capture_output=True, text=True, check=False
    )
    assert ran.stdout == "cleaned up\nstopped\n"
    assert ran.stderr == "SIGTERM: stopping\n"


def test_a_request_from_before_keeps_such_work_from_beginning_and_one_after_it_does_not_interrupt():
    with listening() as request:
        with request.interrupting("too late", hint=""):
            pass
        send(signal.SIGUSR1)
        with pytest.raises(StoppedError) as caught, request.interrupting("early", hint=""):
            pytest.fail("began")
    assert caught.value.exit_code == 128 + signal.SIGUSR1


ANSWERED = """
import os, signal, sys
from convo_cli.errors import StoppedError
from convo_cli.signals import listening
with listening() as stop:
    with stop.finishing("stopping after the checkpoint"):
        os.kill(os.getpid(), int(sys.argv[1]))
    print("finished", flush=True)
"""


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        (signal.SIGINT, "stopping after the checkpoint; press Ctrl-C again to leave at once\n"),
        (signal.SIGTERM, "SIGTERM: stopping after the checkpoint\n"),
    ],
)
def test_the_answer_names_what_is_finished_first(number, answer):
    ran = subprocess.run(
        [sys.executable, "-c", ANSWERED, str(int(number))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (ran.stdout, ran.stderr) == ("finished\n", answer)


def test_a_stop_that_interrupts_needs_no_answer_but_its_message(capsys):
    with (
        pytest.raises(StoppedError, match="inner"),
        listening() as stop,
        stop.interrupting("outer"),
        stop.interrupting("inner"),
    ):
        send(signal.SIGINT)
    assert capsys.readouterr().err == ""


def test_the_hint_of_an_interrupt_may_depend_on_how_far_the_work_came():
    done = []

    def work():
        with (
            listening() as stop,
            stop.interrupting("stopped", hint=lambda: f"{len(done)} are kept"),
        ):
            done.append(1)
            send(signal.SIGTERM)

    with pytest.raises(StoppedError) as caught:
        work()
    assert caught.value.hint == "1 are kept"


def test_inside_an_interruptible_block_work_can_be_finished():
    done = []

    def work():
        with listening() as stop, stop.interrupting("stopped"):
            with stop.finishing("stopping soon"):
                send(signal.SIGTERM)
                done.append("finished")
            with stop.interrupting("stopped"):
                done.append("begun")

    with pytest.raises(StoppedError):
        work()
    assert done == ["finished"]


def test_a_block_may_have_ctrl_c_for_itself_and_a_termination_still_ends_it():
    with listening() as stop, stop.interrupting("stopped"):
        with stop.without_ctrl_c():
            for _ in range(3):
                with pytest.raises(KeyboardInterrupt):
                    send(signal.SIGINT)
            assert not stop.is_set
            with pytest.raises(Interrupt):
                send(signal.SIGTERM)
        assert stop.signal_number == signal.SIGTERM


def test_a_view_writes_the_answer_itself():
    lines = []
    with answering(lines.append), listening():
        send(signal.SIGTERM)
    assert lines == ["SIGTERM: stopping after this step"]


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with listening() as stop:
            send(signal.SIGHUP)
            assert not stop.is_set
    finally:
        signal.signal(signal.SIGHUP, before)
