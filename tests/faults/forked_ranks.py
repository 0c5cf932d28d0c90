"""The ranks of a world, forked instead of started.

An import of torch or transformers costs more than all the rest of a tiny run. The ranks are forked
before the launcher begins, and wait for the arguments, environment and open files that it sends.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from tests.forked_bounded import fork_bounded_process

MOST_SECONDS = 600
"""For a command; a busy machine may take minutes for what takes a second."""
_FREE = 200  # descriptors from here on; those of passed files are lower


def fork_ranks(count: int) -> None:
    """Fork idle ranks and let the launcher of this process use them.

    The fault layer watches rank FAULT_RANK, and sends its signals to rank FAULT_VICTIM.
    """
    idle: list[tuple[int, socket.socket]] = []
    for _ in range(count):
        own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            for _, other in idle:
                other.close()
            own.close()
            _become_rank(its)
        its.close()
        idle.append((pid, own))
    from convo_cli.training.distributed import launcher

    os.environ["FAULT_PIDS"] = " ".join(str(pid) for pid, _ in idle)
    waiting = iter(idle)

    def popen(*arguments: Any, **options: Any) -> ForkedRank:
        return ForkedRank(*next(waiting), *arguments, **options)

    launcher.subprocess = SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL)  # type: ignore[assignment]


class ForkedRank:
    """A rank, with the methods of `subprocess.Popen` that the launcher uses."""

    def __init__(
        self,
        pid: int,
        channel: socket.socket,
        arguments: list[str],
        *,
        env: dict[str, str],
        pass_fds: tuple[int, ...],
        start_new_session: bool,
        **streams: Any,
    ) -> None:
        assert start_new_session
        self.pid = pid
        self.returncode: int | None = None
        files = [_file_of(streams[name], number) for number, name in enumerate(_STREAMS)]
        task = {"arguments": arguments[3:], "environment": env, "files": [0, 1, 2, *pass_fds]}
        socket.send_fds(channel, [json.dumps(task).encode()], [*files, *pass_fds])
        channel.close()

    def poll(self, options: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int | None:
        return self.poll(0)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


_STREAMS = ("stdin", "stdout", "stderr")


def _file_of(stream: Any, number: int) -> int:
    if stream is None:
        return number
    if stream == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDWR)
    return int(stream.fileno())


def _become_rank(channel: socket.socket) -> None:
    text, files, _, _ = socket.recv_fds(channel, 1 << 20, 16)
    if not text:  # the launcher ended without this rank
        os._exit(0)
    channel.close()
    signal.alarm(MOST_SECONDS)
    os.setsid()
    task = json.loads(text)
    for file, number in zip(
        [fcntl.fcntl(file, fcntl.F_DUPFD, _FREE) for file in files], task["files"], strict=True
    ):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(task["environment"])
    sys.argv = ["convo", *task["arguments"]]
    fork_bounded_process()
    become_convo(is_watched=os.environ["RANK"] == os.environ.get("FAULT_RANK"))


def become_convo(*, is_watched: bool, tell: int | None = None) -> None:
    """Run the command in sys.argv and end this process with its exit code.

    The names of its modules are written to ``tell``.
    """
    code = 1
    try:
        if is_watched:
            pids = os.environ.get("FAULT_PIDS", "").split()
            if pids:
                os.environ["FAULT_PID"] = pids[int(os.environ["FAULT_VICTIM"])]
            ctypes.CDLL(None).fault_arm()
        from convo_cli.__main__ import main as convo

        convo()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())
    finally:
        if tell is not None:
            os.write(tell, "\n".join(sys.modules).encode())
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
