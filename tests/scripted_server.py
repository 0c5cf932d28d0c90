"""A server with the chat page whose replies a test chooses: errors, hostile texts, broken streams.

It speaks the API that the page uses. What a real model says, and when, no test can choose.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

CONTRACT = "5a" * 32
SAMPLING = {
    "max_new_tokens": 64, "temperature": 0.7, "top_k": 0, "top_p": 0.9, "min_p": 0.0,
    "repetition_penalty": 1.0,
}  # fmt: skip


@dataclass
class Answer:
    """One answer of the server to a request for a reply."""

    pieces: Sequence[str] = ("Good ", "morning", ".")
    pause: float = 0.0
    """Seconds before each piece."""
    status: int = 200
    message: str = ""
    """Of the error; with status 200, the last event."""
    retry_after: str | None = None
    is_broken: bool = False
    """Close the connection after the pieces."""
    dropped: int = 0
    bytes_at_once: int | None = None
    """Size of the chunks of the stream; None: one for each event."""
    line_end: str = "\n"


@dataclass
class ScriptedServer:
    """Holds the next answers and the received requests."""

    names: list[str] = field(default_factory=lambda: ["tiny", "other"])
    answers: list[Answer] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    key: str | None = None
    num_left: int = 0
    """Number of streams whose client disconnected."""
    address: str = ""

    def app(self) -> Any:
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse, Response, StreamingResponse
        from starlette.routing import Route

        from convo_cli.serve.chat_page import chat_page

        def refusal(request: Any, answer: Answer | None = None) -> Response | None:
            self.paths.append(request.url.path)
            given = request.headers.get("Authorization")
            if self.key is not None and given != f"Bearer {self.key}":
                return JSONResponse({"error": {"message": "the key is missing"}}, 401)
            return None

        async def page(request: Any) -> Response:
            self.paths.append(request.url.path)
            shown = chat_page()
            return Response(shown.content, headers=shown.headers)

        async def models(request: Any) -> Response:
            about = {"window": 128, "contract": CONTRACT, "sampling": SAMPLING}
            titled = {**about, "title": "step 300, loss 3.2"}
            data = [{"id": name, "object": "model", "convo": titled} for name in self.names]
            return refusal(request) or JSONResponse({"object": "list", "data": data})

        async def complete(request: Any) -> Response:
            if refused := refusal(request):
                return refused
            self.requests.append(await request.json())
            answer = self.answers.pop(0) if self.answers else Answer()
            if self.requests[-1]["model"] not in self.names:
                answer = Answer(status=404, message="there is no such model")
            if answer.status != 200:
                headers = {"Retry-After": answer.retry_after} if answer.retry_after else {}
                error = {"error": {"message": answer.message}}
                return JSONResponse(error, answer.status, headers)
            return StreamingResponse(self._stream(answer), media_type="text/event-stream")

        async def anything(request: Any) -> Response:
            self.paths.append(request.url.path)
            return Response(status_code=404)

        return Starlette(
            routes=[
                Route("/", page),
                Route("/v1/models", models),
                Route("/v1/chat/completions", complete, methods=["POST"]),
                Route("/{path:path}", anything, methods=["GET", "POST"]),
            ]
        )

    async def _stream(self, answer: Answer) -> AsyncIterator[bytes]:
        try:
            for event in _events(answer):
                await asyncio.sleep(answer.pause)
                data = event.replace("\n", answer.line_end).encode()
                step = answer.bytes_at_once or len(data)
                for start in range(0, len(data), step):
                    yield data[start : start + step]
                    if answer.bytes_at_once:
                        await asyncio.sleep(0.002)  # so that it is a chunk of its own
        except asyncio.CancelledError:
            self.num_left += 1
            raise
        if answer.is_broken:
            await asyncio.sleep(0.3)  # a browser drops what it has not read when a stream breaks
            raise ConnectionResetError


def _events(answer: Answer) -> Iterator[str]:
    for piece in ("", *answer.pieces):
        yield _event({"choices": [{"index": 0, "delta": {"content": piece}}]})
    if answer.message:
        yield _event({"error": {"message": answer.message}})
    if answer.message or answer.is_broken:
        return
    yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"completion_tokens": len(answer.pieces)}
    yield _event({"choices": [], "usage": usage, "convo": {"dropped_turns": answer.dropped}})
    yield "data: [DONE]\n\n"


def _event(chunk: object) -> str:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


@contextlib.contextmanager
def scripted_server(**options: Any) -> Iterator[ScriptedServer]:
    """Run a server on a free port, in a thread."""
    import uvicorn

    scripted = ScriptedServer(**options)
    config = uvicorn.Config(scripted.app(), log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        scripted.address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield scripted
        finally:
            server.should_exit = True
            server.force_exit = True
            thread.join(10)
