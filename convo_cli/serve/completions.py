"""`POST /v1/chat/completions`: a body becomes a job of the engine, its events become the answer."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from convo_cli.config.schema import GenerationSettings
from convo_cli.errors import DataError, ModelError
from convo_cli.model.decoding.queries import Query
from convo_cli.serve.jobs import BusyError, EngineFaultError, Failed, Finished, Job, Piece
from convo_cli.serve.requests import ChatRequest, parse_request
from convo_cli.serve.served_models import ServedModel
from convo_cli.serve.wire.access_log import RequestRecord, WriteLine, record_of, shown
from convo_cli.serve.wire.bodies import Bodies, ClientGoneError, decode
from convo_cli.serve.wire.exchange import EventQueue, EventStream, Exchange
from convo_cli.serve.wire.objects import LAST_EVENT, Answer, ApiError, Usage, as_event
from convo_cli.serve.wire.refusals import send_object
from convo_cli.text.prompt import PromptTooLongError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_NUM_READERS = 2
_MAX_READING = 64


@dataclass(frozen=True)
class _Asked:
    """A request with its model, prompt and settings, ready for the engine."""

    request: ChatRequest
    model: ServedModel
    query: Query
    settings: GenerationSettings


class ChatCompletions:
    """ASGI application that answers conversations.

    Bodies are decoded, rendered and encoded in a few threads, so that the event loop stays free.
    """

    def __init__(
        self, models: Mapping[str, ServedModel], *, max_seconds: float, log_fault: WriteLine
    ) -> None:
        self.is_draining = False
        """Whether new requests are refused, because the server is stopping."""
        self._models = models
        self._max_seconds = max_seconds
        self._log_fault = log_fault
        self._bodies = Bodies()
        self._readers = ThreadPoolExecutor(_NUM_READERS, thread_name_prefix="convo-requests")
        self._num_reading = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._require_open()
        raw = await self._bodies.read(receive)
        exchange = Exchange(receive, self._max_seconds)
        try:
            asked = await exchange.until(self._read(raw))
            await self._answer(asked, exchange, send, record_of(scope))
        finally:
            exchange.close()

    def _require_open(self) -> None:
        if self.is_draining:
            raise ApiError(503, "the server is stopping", code="stopping", retry_after=30)

    async def _read(self, raw: bytes) -> _Asked:
        if self._num_reading >= _MAX_READING:
            raise _full()
        is_wanted = threading.Event()
        is_wanted.set()
        loop = asyncio.get_running_loop()
        # A body that waits is in memory until a thread takes it, also if its client has left.
        reading = loop.run_in_executor(self._readers, _asked, raw, self._models, is_wanted)
        self._num_reading += 1
        reading.add_done_callback(self._end_reading)
        try:
            await asyncio.wait([reading])  # which does not cancel it
            return reading.result()
        except asyncio.CancelledError:
            is_wanted.clear()
            raise

    def _end_reading(self, reading: asyncio.Future[_Asked]) -> None:
        self._num_reading -= 1
        if not reading.cancelled():
            reading.exception()  # else the event loop would log one that no client waits for

    async def _answer(
        self, asked: _Asked, exchange: Exchange, send: Send, record: RequestRecord
    ) -> None:
        events = EventQueue()
        request, query = asked.request, asked.query
        job = Job(
            query=query,
            settings=asked.settings,
            seed=secrets.randbits(63) if request.seed is None else request.seed,
            stop=tuple(request.stop),
            cache_key=request.prompt_cache_key,
            emit=events.emit,
        )
        self._require_open()
        try:
            asked.model.engine.submit(job)
        except BusyError:
            self._require_open()
            raise _full() from None
        record.model, record.num_prompt = asked.model.id, len(query.ids)
        answer = Answer(asked.model.id, query.num_dropped)
        try:
            arrived = self._events(events, exchange, record)
            if request.stream:
                await _stream(answer, request, query, arrived, EventStream(exchange, send))
            else:
                await _whole(answer, query, arrived, send)
        finally:
            asked.model.engine.cancel(job)

    async def _events(
        self, events: EventQueue, exchange: Exchange, record: RequestRecord
    ) -> AsyncIterator[Piece | Finished]:
        """Yield the events of a job up to the last one; ApiError if the job fails."""
        while True:
            event = await exchange.until(events.next())
            if isinstance(event, Failed):
                raise self._failure(event)
            if isinstance(event, Finished):
                record.num_reply = event.num_reply_tokens
            yield event
            if isinstance(event, Finished):
                return

    def _failure(self, event: Failed) -> ApiError:
        if isinstance(event.error, BusyError):
            return ApiError(503, "the server is stopping", code="stopping", retry_after=30)
        if not isinstance(event.error, EngineFaultError):  # the engine reports its own faults
            self._log_fault(f"a reply failed: {shown(event.error.message, 500)}")
        return ApiError(500, "the model failed to compute the reply", code="reply_failed")


def _full() -> ApiError:
    return ApiError(429, "too many requests are waiting", code="queue_full", retry_after=5)


def _asked(raw: bytes, models: Mapping[str, ServedModel], is_wanted: threading.Event) -> _Asked:
    """Return the request in a body with its prompt; ApiError for everything that is refused.

    ClientGoneError if it is no longer wanted.
    """
    if not is_wanted.is_set():
        raise ClientGoneError
    request = parse_request(decode(raw))
    model = _model_of(request, models)
    settings = request.settings(model.defaults)
    try:
        query = model.query(request.turns(), settings)
    except PromptTooLongError as error:
        raise ApiError(
            400, error.message, code="context_length_exceeded", param="messages"
        ) from None
    except DataError as error:
        raise ApiError(400, error.message, code="invalid_messages", param="messages") from None
    except ModelError:
        message = (
            "the model's chat template or tokenizer fails on these messages, or takes too much "
            "time or memory"
        )
        raise ApiError(400, message, code="invalid_messages", param="messages") from None
    return _Asked(request, model, query, settings)


def _model_of(request: ChatRequest, models: Mapping[str, ServedModel]) -> ServedModel:
    """Return the model that a request names; it may name none if there is only one."""
    if request.model is None:
        if len(models) == 1:
            return next(iter(models.values()))
        message = "model: required, because there are several; GET /v1/models lists them"
        raise ApiError(400, message, code="invalid_value", param="model")
    if request.model not in models:
        raise model_not_found()
    return models[request.model]


def model_not_found() -> ApiError:
    """Return the refusal of a model that is not served."""
    message = "there is no such model; GET /v1/models lists them"
    return ApiError(404, message, code="model_not_found", param="model")


async def _whole(
    answer: Answer, query: Query, events: AsyncIterator[Piece | Finished], send: Send
) -> None:
    pieces = list[str]()
    async for event in events:
        if isinstance(event, Piece):
            pieces.append(event.text)
        else:
            value = answer.completion("".join(pieces), event.reason, _usage(query, event))
            await send_object(send, 200, value)


async def _stream(
    answer: Answer,
    request: ChatRequest,
    query: Query,
    events: AsyncIterator[Piece | Finished],
    stream: EventStream,
) -> None:
    """Send the events of a reply as they come. The answer begins with the first one.

    So a request that fails while it waits gets an error status. A later error is an event.
    """
    try:
        async for event in events:
            if not stream.has_begun:
                await stream.push(as_event(answer.beginning()))
            if isinstance(event, Piece):
                await stream.push(as_event(answer.piece(event.text)))
            else:
                await stream.push(as_event(answer.end(event.reason)))
                if request.includes_usage:
                    await stream.push(as_event(answer.usage(_usage(query, event))))
    except ApiError as error:
        if not stream.has_begun:
            raise
        await stream.push(as_event(error.as_object()))
    await stream.push(LAST_EVENT, is_last=True)


def _usage(query: Query, event: Finished) -> Usage:
    return Usage(len(query.ids), event.num_reply_tokens, event.num_reused)
