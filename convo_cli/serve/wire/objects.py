"""OpenAI-compatible JSON objects: errors, completions, chunks of a stream."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


class ApiError(Exception):
    """The refusal of a request; the client gets its message.

    ``param`` names the field of the request. ``retry_after`` is in seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["retry-after"] = str(retry_after)

    def as_object(self) -> Json:
        return error_object(self.status, self.message, code=self.code, param=self.param)


_KINDS = {401: "authentication_error", 429: "rate_limit_error"}


def error_object(
    status: int, message: str, *, code: str | None = None, param: str | None = None
) -> Json:
    """Return the body of an error response."""
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def as_json(value: Json) -> bytes:
    """Return an object on one line of ASCII: every line break in a text is an escape.

    So no text can end a line of an event stream.
    """
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def as_event(value: Json) -> bytes:
    """Return an object as one event of a stream."""
    return b"data: " + as_json(value) + b"\n\n"


LAST_EVENT = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Usage:
    """Numbers of tokens of an answer."""

    prompt: int
    reply: int
    reused: int

    def as_object(self) -> Json:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.reply,
            "total_tokens": self.prompt + self.reply,
            "prompt_tokens_details": {"cached_tokens": self.reused},
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What all objects of one answer have in common."""

    model: str
    num_dropped: int
    """First turns that the model did not see, because they did not fit the window."""
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, text: str, reason: str, usage: Usage) -> Json:
        """Return the whole answer."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": usage.as_object(),
            "convo": self._own(),
        }

    def beginning(self) -> Json:
        """Return the first chunk."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None}, None)

    def piece(self, text: str) -> Json:
        """Return the chunk of a piece of the text."""
        return self._chunk({"content": text}, None)

    def end(self, reason: str) -> Json:
        """Return the chunk that says why the text ends."""
        return {**self._chunk({}, reason), "convo": self._own()}

    def usage(self, usage: Usage) -> Json:
        """Return the chunk with the numbers of tokens, the last one."""
        head = self._head("chat.completion.chunk")
        return {**head, "choices": [], "usage": usage.as_object(), "convo": self._own()}

    def _chunk(self, delta: Json, reason: str | None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _own(self) -> Json:
        return {"dropped_turns": self.num_dropped}
