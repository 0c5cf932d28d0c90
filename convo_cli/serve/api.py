"""The HTTP application: its paths, and the layers of checks around them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from starlette.routing import Route, Router

from convo_cli.serve.chat_page import chat_page
from convo_cli.serve.completions import ChatCompletions, model_not_found
from convo_cli.serve.served_models import ServedModel
from convo_cli.serve.wire.access_log import AccessLog, WriteLine
from convo_cli.serve.wire.guards import Guards, SafeHeaders
from convo_cli.serve.wire.objects import Json
from convo_cli.serve.wire.refusals import Refusals, send_bytes, send_object

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

MAX_SECONDS = 600.0
"""Limit of the time for one answer, including its time in the queue."""


class Api:
    """The ASGI application, and the state that its server needs to stop it."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        *,
        hosts: Collection[str] = (),
        api_key: str | None = None,
        log_request: WriteLine | None = None,
        log_fault: WriteLine,
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        """Serve the models; their ids must differ.

        ``hosts`` are names of the server beside those of this machine. ``log_request`` receives
        one line for each request, ``log_fault`` those of faults.
        """
        self.log_fault = log_fault
        by_id = {model.id: model for model in models}
        self.completions = ChatCompletions(by_id, max_seconds=max_seconds, log_fault=log_fault)
        objects = {model.id: model.as_object() for model in models}
        listed = {"object": "list", "data": list(objects.values())}
        routes = [
            Route("/", _Page(), methods=["GET"]),
            Route("/health", _Fixed({"status": "ok"}), methods=["GET"]),
            Route("/v1/models", _Fixed(listed), methods=["GET"]),
            Route("/v1/models/{id:path}", _OneModel(objects), methods=["GET"]),
            Route("/v1/chat/completions", self.completions, methods=["POST"]),
        ]
        guarded = Guards(
            Router(routes, redirect_slashes=False),
            hosts=hosts,
            api_key=api_key,
        )
        self._app = AccessLog(SafeHeaders(Refusals(guarded, log_fault)), log_request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        scope["app"] = self  # so that the router raises its errors, for `Refusals`
        await self._app(scope, receive, send)


class _Fixed:
    """Answers every request with the same object."""

    def __init__(self, value: Json) -> None:
        self._value = value

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_object(send, 200, self._value)


class _OneModel:
    """Sends the object of the model that the path names."""

    def __init__(self, objects: Mapping[str, Json]) -> None:
        self._objects = objects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._objects.get(scope["path_params"]["id"])
        if found is None:
            raise model_not_found()
        await send_object(send, 200, found)


class _Page:
    """Sends the chat page from memory."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = chat_page()
        await send_bytes(send, 200, page.content, page.headers)
