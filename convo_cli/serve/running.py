"""The server process: uvicorn in a thread, and an orderly stop.

The main thread waits for stop signals, which convo handles itself (`convo_cli.signals`).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import uvicorn

from convo_cli.serve.api import Api
from convo_cli.serve.served_models import Answering
from convo_cli.serve.wire.access_log import shown
from convo_cli.serve.wire.connections import (
    Waiting,
    accept_limit,
    connection_limit,
    connection_type,
)
from convo_cli.serve.wire.refusals import describe_fault
from convo_cli.serve.wire.sockets import Listening
from convo_cli.signals import StopRequest

DRAIN_SECONDS = 30.0
"""Time in which running replies may finish after a stop signal."""
_SECONDS_TO_SEND_REST = 5
_POLL_SECONDS = 0.1
_SECONDS_BETWEEN_WARNINGS = 60.0
_NO_MORE_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NUM_DESCRIPTORS = 1024  # where the system states no limit


class Server:
    """Serves an application on open sockets, in a thread of its own."""

    def __init__(
        self,
        api: Api,
        engines: Sequence[Answering],
        listening: Listening,
        *,
        waiting: Waiting | None = None,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self._api = api
        self._engines = engines
        self._listening = listening
        self._drain_seconds = drain_seconds
        self._failure: BaseException | None = None
        self._next_warning = 0.0
        for name in ("uvicorn.error", "uvicorn.asgi"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # convo reports faults itself
        num_descriptors = _num_descriptors()
        waiting = waiting or Waiting(connection_limit(num_descriptors))
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                api,
                loop="asyncio",
                http=connection_type(waiting),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=accept_limit(num_descriptors),  # asyncio accepts as many in one go
                timeout_graceful_shutdown=_SECONDS_TO_SEND_REST,
            )
        )
        self._thread = threading.Thread(target=self._run, name="convo-server", daemon=True)

    def start(self) -> None:
        """Begin to accept connections."""
        self._thread.start()

    def wait(self, stop: StopRequest) -> None:
        """Serve until a stop is requested, then finish running replies."""
        while not stop.is_set and self._thread.is_alive():
            self._thread.join(_POLL_SECONDS)
        self.stop()

    def stop(self) -> None:
        """Refuse new requests, finish the others in a bounded time, and end the thread.

        An exception that ended the thread is raised here.
        """
        self._api.completions.is_draining = True
        end = time.monotonic() + self._drain_seconds
        for engine in self._engines:  # the others continue meanwhile
            engine.drain(max(0.0, end - time.monotonic()))
        self._uvicorn.should_exit = True
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self._failure = error

    async def _serve(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._report)
        await self._uvicorn.serve(sockets=self._listening.sockets)

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Report a fault outside of requests, and a lack of files only from time to time.

        asyncio logs a traceback with the exception's message each time.
        """
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _NO_MORE_FILES:
            if loop.time() >= self._next_warning:
                self._next_warning = loop.time() + _SECONDS_BETWEEN_WARNINGS
                self._api.log_fault(f"new connections must wait: {error.strerror}")
        elif error is not None:
            self._api.log_fault(describe_fault(error))
        else:
            self._api.log_fault(shown(context["message"], 200))


def _num_descriptors() -> int:
    """Return the number of files that this process may have open."""
    try:
        import resource
    except ImportError:  # Windows
        return _NUM_DESCRIPTORS
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _NUM_DESCRIPTORS if limit == resource.RLIM_INFINITY else limit
