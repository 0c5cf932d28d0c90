"""Runs `convo` in forks of a process that has imported everything: real processes, no imports.

A fork has its own process id, signals, streams and exit code, like the executable of
`tests.commands`. Only the interpreter and its imports, which cost six seconds of CPU time, come
from a server; each process of pytest starts one when it first needs it. A fork has its own
environment, but a library that reads variables while it is imported has those of the server.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import functools
import gc
import importlib
import json
import os
import pkgutil
import socket
import subprocess
import sys
import tempfile
import termios
from pathlib import Path
from typing import Any

from tests.commands import EXECUTABLE, Result, environment, start
from tests.forked_bounded import IMPORTED, fork_bounded_process

_ROOT = Path(__file__).resolve().parent.parent
_IMPORTED = (
    "torch._dynamo", "transformers.models.gpt2.modeling_gpt2", "sacrebleu", "prompt_toolkit",
    "nltk.translate.nist_score", "rich.live", "rich.markdown", "matplotlib.style",
    "matplotlib.backends.backend_agg", "matplotlib.ticker", "tensorboardX.record_writer",
    "tensorboardX.summary",
)  # fmt: skip
"""Modules of libraries that commands import late."""
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>


def start_fork(folder: Path, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command like `tests.commands.start`, with options of `subprocess.Popen`.

    Only streams, ``env`` and ``start_new_session`` have an effect.
    """
    if sys.platform != "linux":
        return start(folder, *arguments, **options)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [str(EXECUTABLE), *map(str, arguments)]
    return _Fork(command, cwd=folder, **{**pipes, "env": environment(), **options})


def run_fork(folder: Path, *arguments: object, stdin: bytes = b"", **options: Any) -> Result:
    """Run a command to its end, like `tests.commands.run_process`."""
    process = start_fork(folder, *arguments, **options)
    try:
        out, err = process.communicate(stdin, timeout=120)
    finally:
        process.kill()
    return Result(process.returncode, (out or b"").decode(), (err or b"").decode())


class _Fork(subprocess.Popen[bytes]):
    def _execute_child(
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
        creationflags, shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite,
        restore_signals, group, groups, user, umask, start_new_session, *rest,
    ):  # fmt: skip
        request = {
            "arguments": args,
            "folder": str(cwd),
            "environment": env,
            "is_session": start_new_session,
        }
        given = (p2cread, c2pwrite, errwrite)
        files = [number if file == -1 else file for number, file in enumerate(given)]
        self.pid = _fork(json.dumps(request).encode(), files)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)


def _fork(request: bytes, files: list[int]) -> int:
    """Create a fork of the server that is a child of this process; return its process id."""
    channel = _server()
    # The server's grandchild loses its parent, and becomes a child of this process.
    prctl = ctypes.CDLL(None).prctl
    prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        socket.send_fds(channel, [request], files)
        return int(channel.recv(64))
    finally:
        prctl(_SUBREAPER, 0, 0, 0, 0)


@functools.cache
def _server() -> socket.socket:
    own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.forks", str(its.fileno())],
        cwd=_ROOT,
        env={**environment(), "OMP_NUM_THREADS": "1"},
        pass_fds=[its.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    its.close()

    def end() -> None:
        own.close()
        process.wait(30)

    atexit.register(end)
    assert own.recv(64) == b"ready"
    return own


def main() -> None:
    """Fork a command for each request; return in each fork, with the command in sys.argv."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    import convo_cli

    found = pkgutil.walk_packages(convo_cli.__path__, "convo_cli.")
    for name in (*_IMPORTED, *IMPORTED, *(module.name for module in found)):
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a fork has only the thread that forks"
    gc.freeze()  # a collection in a fork would copy all of the memory
    channel.send(b"ready")
    while True:
        text, files, _, _ = socket.recv_fds(channel, 2**20, 3)
        if not text:
            sys.exit()
        reading, writing = os.pipe()
        between = os.fork()
        if between == 0:
            if pid := os.fork():
                os.write(writing, str(pid).encode())
                os._exit(0)
            break
        os.waitpid(between, 0)
        channel.send(os.read(reading, 64))
        for file in (*files, reading, writing):
            os.close(file)
    channel.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, 256)
    _open_streams()
    request = json.loads(text)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    sys.argv = request["arguments"]
    if request["is_session"]:
        os.setsid()
        if os.isatty(0):  # the session's terminal, which sends it signals
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    fork_bounded_process()


def _open_streams() -> None:
    """Create sys.stdin, stdout and stderr as the interpreter does."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        before = getattr(sys, name)
        stream = os.fdopen(
            number, mode, encoding=before.encoding, errors=before.errors, closefd=False
        )
        stream.reconfigure(line_buffering=name == "stderr" or stream.isatty())
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    main()
    from convo_cli.__main__ import main as convo

    try:
        convo()
    except SystemExit as stop:  # without the end of the interpreter, which takes a second
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1)
