"""Requests for a chat completion: the fields that convo knows, each with its type and range.

An unknown field is refused, because the answer would silently differ from the one that the client
asked for. Fields of OpenAI's API that convo does not support are accepted at the value that has no
effect.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Role, Turn
from convo_cli.serve.wire.objects import ApiError

MAX_MESSAGES = 4096
_MAX_STOPS = 4
_MAX_STOP_CHARACTERS = 256
_MAX_KEY_CHARACTERS = 256
_MAX_NAME_CHARACTERS = 64  # of a field, in an error

IGNORED = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_retention"})
"""Fields that describe the request and do not change the answer."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
"""Fields of OpenAI's API, each with the accepted values, which do not change the answer."""
_NEUTRAL_IN_MESSAGE: Mapping[str, tuple[Any, ...]] = {"tool_calls": ([],), "annotations": ([],)}
_RENAMED = {"developer": "system"}
_SETTINGS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def _as_text(content: Any) -> Any:
    """Join a list of text parts; white space at the ends and line ends become as in data files."""
    if isinstance(content, list):
        if not all(_is_text_part(part) for part in content):
            raise PydanticCustomError("content", "a part must be {{'type': 'text', 'text': '…'}}")
        content = "".join(part["text"] for part in content)
    if isinstance(content, str):
        return content.replace("\r\n", "\n").replace("\r", "\n").strip()
    return content


def _is_text_part(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and part.keys() == {"type", "text"}
        and part["type"] == "text"
        and isinstance(part["text"], str)
    )


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_as_text)]


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


_Stop = Annotated[str, Field(min_length=1, max_length=_MAX_STOP_CHARACTERS)]


class ChatRequest(_Strict):
    """The body of `POST /v1/chat/completions`; an absent field is None."""

    model: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: Annotated[list[_Stop], BeforeValidator(_as_list), Field(max_length=_MAX_STOPS)] = []
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=_MAX_KEY_CHARACTERS)] | None = None

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def turns(self) -> list[Turn]:
        """Return the conversation; ApiError if the order of roles is wrong."""
        turns = list[Turn]()
        for index, message in enumerate(self.messages):
            role: Role = "system" if message.role == "developer" else message.role
            if role == "system" and index > 0:
                raise _refused(f"messages[{index}].role", "a system message must come first")
            if role == "user" and not message.content:
                raise _refused(f"messages[{index}].content", "the text is empty")
            if role != "system" or message.content:
                turns.append(Turn(role, message.content))
        if self.messages[-1].role != "user":
            place = f"messages[{len(self.messages) - 1}].role"
            raise _refused(place, "the last message must be the user's")
        return turns

    def settings(self, defaults: GenerationSettings) -> GenerationSettings:
        """Return the sampling settings of the request, and the model's defaults for all others."""
        chosen = {name: getattr(self, name) for name in _SETTINGS}
        lengths = {
            "max_tokens": self.max_tokens,
            "max_completion_tokens": self.max_completion_tokens,
        }
        given = {name: value for name, value in lengths.items() if value is not None}
        if len(set(given.values())) > 1:
            raise _refused("max_tokens", "it differs from max_completion_tokens")
        chosen["max_new_tokens"] = next(iter(given.values()), None)
        asked = {name: value for name, value in chosen.items() if value is not None}
        try:
            return GenerationSettings.model_validate({**defaults.model_dump(), **asked})
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            raise _refused(
                next(iter(given)) if name == "max_new_tokens" else name, first["msg"]
            ) from None


def parse_request(value: Any) -> ChatRequest:
    """Return the request in a decoded body; ApiError 400 names the first field that is refused."""
    if not isinstance(value, dict):
        raise ApiError(400, "the body is not a JSON object", code="invalid_json")
    known = _without_neutral(value, NEUTRAL, "")
    if isinstance(messages := known.get("messages"), list):
        if len(messages) > MAX_MESSAGES:
            raise _refused("messages", f"there are more than {MAX_MESSAGES:,}")
        known["messages"] = [
            _without_neutral(one, _NEUTRAL_IN_MESSAGE, f"messages[{index}].")
            if isinstance(one, dict)
            else one
            for index, one in enumerate(messages)
        ]
    try:
        return ChatRequest.model_validate(known)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        unknown = [one for one in errors if one["type"] == "extra_forbidden"]
        raise _as_api_error((unknown or errors)[0]) from None


def _without_neutral(
    value: dict[str, Any], neutral: Mapping[str, tuple[Any, ...]], place: str
) -> dict[str, Any]:
    """Return an object without fields that are null or have no effect."""
    kept = dict[str, Any]()
    for name, one in value.items():
        is_field = name in neutral or name in _fields(place)
        if (one is None and is_field) or (not place and name in IGNORED):
            continue
        if name in neutral:
            if not any(_is_same(one, value) for value in neutral[name]):
                values = " or ".join(map(json.dumps, neutral[name]))
                raise ApiError(
                    400,
                    f"{place}{name}: only {values} is supported",
                    code="unsupported_parameter",
                    param=place + name,
                )
            continue
        kept[name] = one
    return kept


_NULL_IN_MESSAGE = frozenset({"name", "refusal", "audio", "function_call"})
"""Fields of a message that OpenAI's clients send back as null."""


def _fields(place: str) -> frozenset[str] | dict[str, Any]:
    return _NULL_IN_MESSAGE if place else ChatRequest.model_fields


def _is_same(one: Any, other: Any) -> bool:
    """Compare two values of JSON, in which true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _as_api_error(error: ErrorDetails) -> ApiError:
    place = ""
    for part in error["loc"]:
        if isinstance(part, int):
            place += f"[{part}]"
        else:
            shown = part if len(part) <= _MAX_NAME_CHARACTERS else part[:_MAX_NAME_CHARACTERS] + "…"
            place += f".{shown}" if place else shown
    if error["type"] == "extra_forbidden":
        message = f"{place}: this server does not support the parameter"
        return ApiError(400, message, code="unsupported_parameter", param=place)
    is_no_object = error["type"] == "model_type"  # pydantic names the class
    return _refused(place, "Input should be an object" if is_no_object else error["msg"])


def _refused(place: str, reason: str) -> ApiError:
    return ApiError(400, f"{place}: {reason}", code="invalid_value", param=place)
