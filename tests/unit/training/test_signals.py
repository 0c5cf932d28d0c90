"""The first signal asks, the second one leaves, and afterwards everything is as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from convo_cli.training.signals import listening

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]

TWICE = """
import os, signal, sys
from convo_cli.training.signals import listening
with listening() as request:
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here", request.signal_number, flush=True)
    os.kill(os.getpid(), int(sys.argv[1]))
    print("never reached", flush=True)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_remembered_and_nothing_else_happens(number):
    with listening() as request:
        assert not request.is_set
        os.kill(os.getpid(), number)
        assert request.is_set
        assert request.signal_number == number


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_leaves_at_once_with_its_own_exit_code(number):
    ran = subprocess.run(
        [sys.executable, "-c", TWICE, str(int(number))], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stdout == f"still here {int(signal.SIGTERM)}\n"
    assert ran.returncode == 128 + number
    assert ran.stderr == ""


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
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_requests_of_one_block_do_not_reach_the_next():
    with listening():
        os.kill(os.getpid(), signal.SIGINT)
    with listening() as request:
        assert not request.is_set
