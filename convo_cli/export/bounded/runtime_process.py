"""Runtime process: it opens an export in the format's own runtime, under limits.

Runtimes are large programs in C++ that read files. A fault in one of them ends this process and not
the command. `convo_cli.export.bounded.bounded_runtime` starts the process and sends requests, one
line of JSON each; the answer is one line too. The process has no network but its own loopback
sockets, and starts with nothing from the working folder.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from convo_cli.export.format import About, Runtime

OUT_OF_MEMORY = 77
"""Exit code for a runtime that ran out of memory."""
_IGNORED_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
_MAX_FILE_BYTES = 2**26
"""Largest file that a runtime may write; it has no reason to write one."""
_MAX_ERROR = 1000  # characters
_REMOTE = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Limits(NamedTuple):
    """Limits of the process; only Linux enforces the memory limit."""

    memory_bytes: int
    """Beyond that of the imported packages."""
    cpu_seconds: int


def main() -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as nowhere:  # a library that prints must not touch the answers
        os.dup2(nowhere.fileno(), 1)
    for name in _IGNORED_SIGNALS:
        if hasattr(signal, name):  # the client handles these signals
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.addaudithook(_refuse_network)
    requests = SimpleQueue[bytes]()
    Thread(target=_read_requests, args=(requests,), daemon=True).start()
    try:
        opened: Runtime | None = None
        while True:
            request = json.loads(requests.get())
            try:
                if opened is None:
                    opened = _open(request)
                    found: Any = _described(opened)
                else:
                    found = _TASKS[request["task"]](opened, request)
                answer = json.dumps({"found": found}, allow_nan=False).encode()
            except MemoryError:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001  (runtimes raise many types)
                answer = json.dumps({"error": _reason(error)}).encode()
            answers.write(answer + b"\n")
            answers.flush()
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


def _read_requests(requests: SimpleQueue[bytes]) -> None:
    """Pass requests on; end this process and its children when stdin ends."""
    while line := sys.stdin.buffer.readline():
        requests.put(line)
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _open(request: dict[str, Any]) -> Runtime:
    module = importlib.import_module(request["module"])
    about: About = module.about()
    limits = Limits(*request["limits"])
    _limit_time(limits.cpu_seconds)
    for name in about.runs_with:
        importlib.import_module(name)
    _limit_memory(limits.memory_bytes)
    base = request["base"]
    opened: Runtime = module.open_runtime(Path(request["folder"]), base and Path(base))
    return opened


def _described(opened: Runtime) -> dict[str, Any]:
    return {
        "name": str(opened.name),
        "version": str(opened.version),
        "classes": [str(one) for one in getattr(opened, "classes", ())],
        "stop_ids": list(map(int, opened.stop_ids)),
    }


def _text_ids(opened: Runtime, request: dict[str, Any]) -> list[list[int]]:
    return [opened.text_ids(text) for text in request["texts"]]


def _prompt_ids(opened: Runtime, request: dict[str, Any]) -> list[list[int] | str]:
    """Return the ids of each prompt, or why its template or template engine refuses it."""
    found = list[list[int] | str]()
    for messages in request["dialogues"]:
        try:
            found.append(opened.prompt_ids(messages))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  (template engines raise many types)
            found.append(_reason(error))
    return found


def _greedy(opened: Runtime, request: dict[str, Any]) -> list[list[int]]:
    return [opened.greedy(ids, request["num_tokens"]) for ids in request["prompts"]]


def _nll(opened: Runtime, request: dict[str, Any]) -> list[list[float]]:
    return [opened.nll(ids, start) for ids, start in request["targets"]]


_TASKS: dict[str, Callable[[Runtime, dict[str, Any]], Any]] = {
    "text_ids": _text_ids,
    "prompt_ids": _prompt_ids,
    "greedy": _greedy,
    "nll": _nll,
}


def _reason(error: BaseException) -> str:
    message = getattr(error, "message", None) or str(error).strip()
    return f"{type(error).__name__}: {message}"[:_MAX_ERROR]


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse every address but loopback, at which a runtime may reach a server of its own."""
    if event not in _REMOTE:
        return
    address = arguments[0] if event == "socket.getaddrinfo" else arguments[-1]
    host = address[0] if isinstance(address, tuple) and address else address
    if host is not None and host not in _LOOPBACK:
        raise OSError("the receipt of an export has no network")


def _limit_time(cpu_seconds: int) -> None:
    """Limit CPU time and files, and write no core dump, on POSIX."""
    if sys.platform != "win32":
        import resource

        for name, soft, hard in (
            (resource.RLIMIT_CORE, 0, 0),
            (resource.RLIMIT_FSIZE, _MAX_FILE_BYTES, _MAX_FILE_BYTES),
            (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + 5),  # SIGXCPU, and later SIGKILL
        ):
            _, most = resource.getrlimit(name)
            if most != resource.RLIM_INFINITY:
                soft, hard = min(soft, most), min(hard, most)
            resource.setrlimit(name, (soft, hard))


def _limit_memory(num_bytes: int) -> None:
    """Limit the memory of this process to what it uses now and ``num_bytes`` more, on Linux."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + num_bytes
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            limit = min(limit, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
