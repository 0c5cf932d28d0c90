"""Launcher of a run on several devices: one process for each, and one outcome.

It sets the environment variables that torchrun sets, and does not import torch. torchrun is not
used, because it kills the processes 30 seconds after a SIGTERM, in the middle of a step or of a
save, and ends every failure with its own traceback and exit code 1.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from types import FrameType
from typing import IO, Literal

from convo_cli.cpus import num_cpus
from convo_cli.errors import DiskError, RankLostError, StoppedError, UsageError
from convo_cli.signals import leave
from convo_cli.training.distributed.chosen_devices import as_visible_devices, choose_devices
from convo_cli.training.distributed.rank_process import LIFELINE, LISTENER
from convo_cli.world import seat_in

_GRACE = 8.0
"""Seconds in which the processes may end by themselves after one of them failed."""
_POLL = 0.05
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGTSTP")


def launch(
    devices: int | Sequence[int] | Literal["auto"],
    device: str,
    arguments: Sequence[str],
    *,
    hint: Callable[[], str],
    config: Path | None = None,
) -> int | None:
    """Run `convo` with these arguments in one process for each device; return the exit code.

    ``devices`` and ``device`` are the values of these config keys. None means that this process
    does the work: there is only one device, or a launcher has started this process. Rank 0 uses
    the streams of this process and reports errors; RankLostError with ``hint`` if it could not.
    Each process reads the ``config``.
    """
    if seat_in() is not None:
        return None
    if (size := os.environ.get("WORLD_SIZE", "1")) not in ("", "1"):
        raise UsageError(
            f"WORLD_SIZE={size} without a RANK, LOCAL_RANK and LOCAL_WORLD_SIZE that fit it",
            hint="start the processes with torchrun, or unset WORLD_SIZE",
        )
    count, gpus = choose_devices(devices, device)
    if count == 1 and not gpus:
        return None
    if not hasattr(os, "fork"):
        raise UsageError("several devices need Linux or macOS", hint="--devices 1")
    if config is not None and not config.is_file():
        raise UsageError(
            f"{config}: a pipe can be read only once, but each device reads the config",
            hint="write the config to a file first",
        )
    ranks = _Ranks()
    with _forwarding(ranks):
        try:
            ranks.start(arguments, count, gpus)
            ranks.wait()
        finally:
            ranks.kill()
    return ranks.outcome(hint)


@dataclass
class _Ranks:
    """The processes of a run, by rank."""

    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    messages: list[IO[bytes]] = field(default_factory=list)
    """The stderr of each process except rank 0, in files without a name."""
    failed: int | None = None
    """The rank that failed first."""
    held: int = -1
    """The launcher's end of the lifeline; it closes when the launcher ends."""
    asked: int | None = None
    """The signal that requested a stop; None without a request."""

    def start(self, arguments: Sequence[str], count: int, gpus: Sequence[int]) -> None:
        """Start the processes; they meet at a socket that is already open, so its port is free."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(2 * count)
            lifeline, self.held = os.pipe()
            shared = {
                "OMP_NUM_THREADS": str(max(1, num_cpus() // count)),
                "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
                **os.environ,
                **({"CUDA_VISIBLE_DEVICES": as_visible_devices(gpus)} if gpus else {}),
                "WORLD_SIZE": str(count),
                "LOCAL_WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(listener.getsockname()[1]),
                LISTENER: str(listener.fileno()),
                LIFELINE: str(lifeline),
            }
            # With the import path of this process, so that the ranks import the same convo.
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; import convo_cli.__main__ as m; m.main()"
            )
            for rank in range(count):
                stdin, output = (None, None) if rank == 0 else (subprocess.DEVNULL,) * 2
                if rank > 0:
                    self.messages.append(_temporary_file())
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-c", code, *arguments],
                        env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                        stdin=stdin,
                        stdout=output,
                        stderr=None if rank == 0 else self.messages[-1],
                        pass_fds=(lifeline, listener.fileno())[: 2 if rank == 0 else 1],
                        start_new_session=True,  # a terminal's Ctrl-C reaches only the launcher
                    )
                )
            os.close(lifeline)
        if self.asked is not None:
            self.send(self.asked)

    def wait(self) -> None:
        """Wait until all processes have ended, after a failure at most `_GRACE` seconds."""
        deadline = float("inf")
        while any(code is None for code in self._codes()) and time.monotonic() < deadline:
            bad = (rank for rank, code in enumerate(self._codes()) if code)
            if self.failed is None and (rank := next(bad, None)) is not None:
                self.failed, deadline = rank, time.monotonic() + _GRACE
            time.sleep(_POLL)

    def send(self, number: int) -> None:
        """Send a signal to all processes that still run."""
        for process in self.processes:
            process.send_signal(number)

    def kill(self) -> None:
        """Kill the processes that still run; show the cursor again if rank 0 was killed."""
        for process in self.processes:
            process.kill()
            process.wait()
        if any(process.returncode < 0 for process in self.processes[:1]):
            _show_cursor()

    def outcome(self, hint: Callable[[], str]) -> int:
        """Return the exit code of the first failure; raise if rank 0 could not report it."""
        codes = [code or 0 for code in self._codes()]
        own = codes[0]
        failed = 0 if self.failed is None else self.failed
        if own == 0:
            return 0
        code = codes[failed] if codes[failed] > 0 else 128 - codes[failed]
        is_explained = self._show_messages(codes)
        if own > 0:
            return code if own == RankLostError.exit_code else own
        if is_explained and code == RankLostError.exit_code:  # of rank 0
            return code
        if self.asked is not None and 128 + self.asked in (128 - own, code):
            raise StoppedError(self.asked, "stopped", hint=hint())
        ended = "was killed by" if codes[failed] < 0 else "ended with exit code"
        how = signal.Signals(-codes[failed]).name if codes[failed] < 0 else str(code)
        error = RankLostError(f"rank {failed} on {socket.gethostname()} {ended} {how}", hint=hint())
        error.exit_code = code
        raise error

    def _show_messages(self, codes: Sequence[int]) -> bool:
        """Print tracebacks and, if rank 0 was killed, the message of the rank that failed first.

        Return whether there was such a message.
        """
        is_explained = False
        for (rank, code), file in zip(enumerate(codes[1:], 1), self.messages, strict=True):
            file.seek(0)
            messages = file.read().decode(errors="replace")
            is_cause = rank == self.failed and code > 0 and codes[0] < 0
            is_explained |= is_cause and bool(messages)
            if is_cause or (code == 1 and "Traceback" in messages):
                sys.stderr.write(messages)
        return is_explained

    def _codes(self) -> list[int | None]:
        return [process.poll() for process in self.processes]


def _temporary_file() -> IO[bytes]:
    try:
        return TemporaryFile()
    except OSError as error:
        raise DiskError(
            f"no temporary file can be created ({error.strerror or error})",
            hint="set TMPDIR to a folder that you can write to and that has space",
        ) from error


def _show_cursor() -> None:
    """Show the terminal's cursor, which a killed process with a live view leaves hidden."""
    if os.environ.get("TERM") not in ("dumb", "unknown") and os.isatty(2):
        with suppress(OSError):
            os.write(2, b"\x1b[?25h")


@contextmanager
def _forwarding(ranks: _Ranks) -> Iterator[None]:
    """Forward a stop request to the processes, and a Ctrl-Z; a second request kills them."""

    def forward(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTSTP:
            ranks.send(signal.SIGSTOP)
            signal.raise_signal(signal.SIGSTOP)  # until `fg` or `bg`
            ranks.send(signal.SIGCONT)
        elif ranks.asked is not None and number != getattr(signal, "SIGHUP", None):
            ranks.send(signal.SIGKILL)  # no wait: the interrupted code may hold its lock
            _show_cursor()
            leave(number)
        elif ranks.asked is None:
            ranks.asked = number
            ranks.send(number)

    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    kept = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    wakeup = signal.set_wakeup_fd(-1)  # rank 0 prints the reply to a request
    before = {number: signal.signal(number, forward) for number in kept}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
