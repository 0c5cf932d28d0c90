"""The launcher shows the cause of a failure, whatever process it is in and however it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from convo_cli.errors import DiskError, RankLostError, StoppedError, UsageError
from convo_cli.training.distributed import launcher
from convo_cli.training.distributed.chosen_devices import as_visible_devices
from convo_cli.training.distributed.launcher import _forwarding, _Ranks, launch


def _ended(*codes, failed, messages=""):
    """Processes that ended with these codes; a negative one is a signal."""
    ranks = _Ranks(failed=failed)
    for rank, code in enumerate(codes):
        work = f"import os, sys; os.kill(os.getpid(), {-code})" if code < 0 else f"exit({code})"
        ranks.processes.append(subprocess.Popen([sys.executable, "-c", work]))
        ranks.processes[-1].wait()
        if rank > 0:
            ranks.messages.append(io.BytesIO(messages.encode()))
    return ranks


@pytest.mark.parametrize("failed", [0, 1])
def test_the_traceback_of_another_process_is_shown_whichever_ended_first(capsys, failed):
    ranks = _ended(1, 1, failed=failed, messages="Traceback: a bug\n")
    assert ranks.outcome(str) == 1
    assert capsys.readouterr().err == "Traceback: a bug\n"


def test_the_message_of_the_first_cause_is_shown_if_rank_0_could_not_report_it(capsys):
    ranks = _ended(-signal.SIGKILL, 7, failed=1, messages="error: disk full\n")
    with pytest.raises(RankLostError) as caught:
        ranks.outcome(str)
    assert caught.value.exit_code == 7
    assert capsys.readouterr().err == "error: disk full\n"


def test_the_loss_of_rank_0_that_another_process_reports_is_the_only_message(capsys):
    messages = "error: rank 0 on here ended or did not answer\n"
    ranks = _ended(-signal.SIGKILL, 137, failed=1, messages=messages)
    assert ranks.outcome(str) == 137
    assert capsys.readouterr().err == messages


def test_messages_of_other_processes_are_not_repeated(capsys):
    assert _ended(7, 7, failed=1, messages="error: disk full\n").outcome(str) == 7
    assert capsys.readouterr().err == ""


def test_a_stop_is_a_stop_although_rank_0_was_too_slow_to_end():
    ranks = _ended(-signal.SIGKILL, 143, failed=1)
    ranks.asked = signal.SIGTERM
    with pytest.raises(StoppedError) as caught:
        ranks.outcome(str)
    assert caught.value.exit_code == 143


@pytest.mark.parametrize(
    ("code", "term", "shown"),
    [
        (-signal.SIGKILL, "xterm", b"\x1b[?25h."),
        (-signal.SIGKILL, "dumb", b"."),
        (7, "xterm", b"."),
    ],
)
def test_the_cursor_that_a_killed_rank_0_hid_is_shown_again(monkeypatch, code, term, shown):
    monkeypatch.setenv("TERM", term)
    ranks, stderr = _ended(code, failed=0), os.dup(2)
    ours, terminal = os.openpty()
    os.dup2(terminal, 2)
    try:
        ranks.kill()
        os.write(2, b".")
    finally:
        os.dup2(stderr, 2)
    seen = b""
    while not seen.endswith(b"."):  # a terminal hands on its text in pieces
        seen += os.read(ours, 100)
    assert seen == shown
    for end in (ours, terminal, stderr):
        os.close(end)


def test_a_second_signal_kills_the_processes_even_while_the_launcher_waits_for_one(monkeypatch):
    left = []
    monkeypatch.setattr(launcher, "leave", left.append)
    ranks = _Ranks()
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    ranks.processes.append(process)
    with _forwarding(ranks), process._waitpid_lock:  # which `Popen.wait` holds
        signal.raise_signal(signal.SIGTERM)
        assert (ranks.asked, left) == (signal.SIGTERM, [])
        signal.raise_signal(signal.SIGTERM)
    assert left == [signal.SIGTERM]
    assert process.wait() < 0


_SUSPENDABLE = """
import subprocess, sys, time
from convo_cli.training.distributed.launcher import _forwarding, _Ranks
process = subprocess.Popen(["sleep", "60"], start_new_session=True)
with _forwarding(_Ranks([process])):
    print("begun", flush=True)
    while True:
        time.sleep(0.01)
"""


def test_processes_are_suspended_and_continue_with_their_launcher():
    """A terminal's Ctrl-Z reaches only the launcher."""
    with subprocess.Popen([sys.executable, "-c", _SUSPENDABLE], stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"begun\n"
        both = psutil.Process(started.pid), *psutil.Process(started.pid).children()
        try:
            started.send_signal(signal.SIGTSTP)
            _wait_until(lambda: {one.status() for one in both} == {psutil.STATUS_STOPPED})
            started.send_signal(signal.SIGCONT)
            _wait_until(lambda: psutil.STATUS_STOPPED not in {one.status() for one in both})
        finally:
            for process in both:
                process.kill()
    assert len(both) == 2


def _wait_until(is_reached):
    deadline = time.monotonic() + 60
    while not is_reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_listed_gpus_are_those_that_the_environment_shows(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert as_visible_devices((0, 2)) == "0,2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5,6")
    assert as_visible_devices((0, 2)) == "4,6"
    for hidden in ("", "4"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        with pytest.raises(UsageError, match="names GPU 2, but CUDA_VISIBLE_DEVICES has"):
            as_visible_devices((0, 2))


def test_a_system_that_cannot_pass_open_files_is_refused(monkeypatch):
    monkeypatch.delattr("os.fork")
    with pytest.raises(UsageError, match="need Linux or macOS"):
        launch(2, "cpu", [], hint=str)


def test_a_config_that_only_one_process_could_read_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"pipe: a pipe can be read only once"):
        launch(2, "cpu", [], hint=str, config=tmp_path / "pipe")
    assert launch(1, "cpu", [], hint=str, config=tmp_path / "pipe") is None


def test_without_a_folder_for_temporary_files_the_error_says_so(monkeypatch):
    monkeypatch.setattr(launcher, "TemporaryFile", lambda: os.open("/none/file", os.O_RDONLY))
    ranks = _Ranks()
    try:
        with pytest.raises(DiskError, match="no temporary file can be created") as caught:
            ranks.start(["--version"], 2, [])
    finally:
        ranks.kill()
    assert "TMPDIR" in (caught.value.hint or "")
