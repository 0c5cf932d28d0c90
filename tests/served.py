"""A server for tests: models with an engine whose events a test chooses, and a running process."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from convo_cli.config.schema import GenerationSettings
from convo_cli.model.decoding.generator import Generator
from convo_cli.serve.api import Api
from convo_cli.serve.jobs import BusyError, Finished, Job, JobEvent, Piece
from convo_cli.serve.running import Server
from convo_cli.serve.served_models import ServedModel
from convo_cli.serve.wire.connections import Waiting
from convo_cli.serve.wire.sockets import addresses_of, listen

OPENED: list[socket.socket] = []
"""Connections of a test, which closes them at its end."""
LOCAL = "http://127.0.0.1:8000"
PATH = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello!"}]}


class ScriptedEngine:
    """Answers each job with the same events, or holds it until the test releases it."""

    def __init__(self, *events: JobEvent | str, is_holding: bool = False, room: int = 1000) -> None:
        self.events: Sequence[JobEvent] = [
            Piece(event) if isinstance(event, str) else event for event in events or ("Hi",)
        ]
        if isinstance(self.events[-1], Piece):
            self.events = [*self.events, Finished("stop", 3, 1)]
        self.is_holding = is_holding
        self.room = room
        self.jobs: list[Job] = []
        self.cancelled: list[Job] = []
        self.num_drained = 0
        self._changed = threading.Condition()

    def submit(self, job: Job) -> None:
        with self._changed:
            if len(self.jobs) - len(self.cancelled) >= self.room:
                raise BusyError("full")
            self.jobs.append(job)
            self._changed.notify_all()
        if not self.is_holding:
            self.answer(job)

    def answer(self, job: Job) -> None:
        for event in self.events:
            job.emit(event)

    def cancel(self, job: Job) -> None:
        with self._changed:
            self.cancelled.append(job)
            self._changed.notify_all()

    def drain(self, seconds: float) -> None:
        self.num_drained += 1
        if self.is_holding:
            for job in self.jobs:
                self.answer(job)

    def wait(self, is_met: Callable[[], bool]) -> None:
        """Wait until jobs have come or were cancelled as the test expects."""
        with self._changed:
            assert self._changed.wait_for(is_met, 20), "it did not happen"


def fake_generator(encoder: Any) -> Generator:
    """Return a generator that makes prompts, but has no model to answer them."""
    model: Any = SimpleNamespace(device="cpu")
    return Generator(model, encoder)


def make_api(encoder: Any, *engines: Any, **options: Any) -> Api:
    """Return an application with one model for each engine; all names begin with m."""
    settings = GenerationSettings(max_new_tokens=8)
    models = [
        ServedModel(f"m{number}", fake_generator(encoder), engine, settings)
        for number, engine in enumerate(engines or (ScriptedEngine(),))
    ]
    return Api(models, **{"log_fault": lambda line: None, **options})


@contextlib.contextmanager
def running(api: Api, *engines: Any, **limits: Any) -> Iterator[int]:
    """Serve on a free port and yield it; ``limits`` are those of connections."""
    waiting = Waiting(**{"seconds_to_send": 20.0, **limits})
    listening = listen("127.0.0.1", addresses_of("127.0.0.1"), 0)
    server = Server(api, engines, listening, waiting=waiting)
    server.start()
    try:
        yield listening.port
    finally:
        server.stop()


def connect(port: int, data: bytes = b"") -> socket.socket:
    """Open a connection and send bytes."""
    opened = socket.create_connection(("127.0.0.1", port), timeout=20)
    OPENED.append(opened)
    opened.sendall(data)
    return opened


def post(body: bytes, *headers: str, path: str = PATH) -> bytes:
    """Return a request as bytes."""
    lines = [
        f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json",
        f"Content-Length: {len(body)}", *headers,
    ]  # fmt: skip
    return "\r\n".join((*lines, "", "")).encode() + body


def received(opened: socket.socket) -> bytes:
    """Return all that the server sends until it closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := opened.recv(2**16):
            parts.append(part)
    return b"".join(parts)
