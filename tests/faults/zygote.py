"""A process that imports everything and then forks one child for each requested `convo` command.

It is started with the fault layer preloaded. It reads one JSON request a line from stdin, and
answers with a line on stdout. The modules to import are those that a first command needs, which is
given as JSON in the arguments.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.faults.forked_ranks import MOST_SECONDS, become_convo, fork_ranks
from tests.forked_bounded import IMPORTED, fork_bounded_process


def main() -> None:
    for name in ("convo_cli.training.run", "transformers.models.gpt2.modeling_gpt2", *IMPORTED):
        importlib.import_module(name)
    warm_up(json.loads(sys.argv[1]))
    gc.freeze()  # a collection in a fork would copy all of the memory
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def warm_up(request: dict[str, Any]) -> None:
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        run(request, tell=writable)
    os.close(writable)
    with open(readable, encoding="utf-8") as names:
        modules = names.read().split()
    os.waitpid(child, 0)
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001 - a module that cannot be imported by its name
            continue


def run(request: dict[str, Any], tell: int | None = None) -> None:
    """Become the command of the request; write the names of its modules to ``tell``."""
    signal.alarm(MOST_SECONDS)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    sys.argv = ["convo", *request["arguments"]]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
    for name, limit in request["limits"].items():
        if name == "RLIMIT_AS":  # above what the zygote has mapped
            num_pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit += num_pages * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(getattr(resource, name), (limit, limit))
    if request["kill_after"] is not None:
        kill_later(request["kill_after"])
    num_ranks = request["num_ranks"]
    if num_ranks == 1:
        fork_bounded_process()
    else:
        fork_ranks(num_ranks)
    become_convo(is_watched=num_ranks == 1, tell=tell)


def kill_later(seconds: float) -> None:
    """Fork a child that kills this process, unless it has ended before."""
    doomed = os.getpid()
    if os.fork() == 0:
        time.sleep(seconds)
        if os.getppid() == doomed:
            os.kill(doomed, signal.SIGKILL)
        os._exit(0)


if __name__ == "__main__":
    main()
