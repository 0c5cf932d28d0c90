"""Bodies of requests: what is accepted, and how the first fault of a bad one is named."""

from __future__ import annotations

import json

import pytest

from convo_cli.config.schema import GenerationSettings
from convo_cli.serve.requests import IGNORED, MAX_MESSAGES, NEUTRAL, parse_request
from convo_cli.serve.wire.bodies import decode
from convo_cli.serve.wire.objects import ApiError

USER = {"role": "user", "content": "Hello!"}
DEFAULTS = GenerationSettings()


def read(value):
    request = parse_request(value)
    return request, request.turns(), request.settings(DEFAULTS)


def refusal(**fields):
    with pytest.raises(ApiError) as caught:
        read({"messages": [USER], **fields})
    error = caught.value
    assert error.status == 400
    return error.param, error.code


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"nonsense", b"[" * 10**6, b'{"a":' * 70 + b"1" + b"}" * 70, b'{"a":NaN}',
        b'{"a":Infinity}', b'{"a":1e400}', b'{"a":1' + b"0" * 400 + b"}", b'{"a":-' + b"9" * 5000,
        b'{"a":1,"a":2}', b'{"\\u0061":1,"a":2}', b'{"a":"\\ud800"}', b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}', b'\xef\xbb\xbf{}', b'{"a":1}{"a":1}', b"{'a':1}", b'{"a":1,}',
        "{}".encode("utf-16"), b'{"a":"\n"}',
    ],
    ids=lambda raw: ascii(raw[:24]),
)  # fmt: skip
def test_a_body_that_is_not_strict_json_is_refused(raw):
    with pytest.raises(ApiError) as caught:
        decode(raw)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")
    assert len(caught.value.message) < 200


def test_a_body_that_is_strict_json_is_read():
    value = {"a": ["\x00\x1b\r\n", "é", "\U0001f600", 1, 1.5, None, True], "b": {"a:": '":'}}
    assert decode(json.dumps(value).encode()) == value


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_a_body_that_is_no_object_is_refused(value):
    with pytest.raises(ApiError, match="not a JSON object"):
        parse_request(value)


@pytest.mark.parametrize(
    "name",
    [
        "chat_template", "chat_template_kwargs", "template", "adapter", "lora", "path", "tokenizer",
        "do_sample", "num_beams", "max_new_tokens", "use_cache", "best_of", "echo", "suffix",
        "guided_json", "stop_token_ids", "ignore_eos", "add_generation_prompt", "prompt", "input",
        "continue_final_message", "extra_body", "documents", "reasoning_effort", "Messages", "",
    ],
)  # fmt: skip
def test_an_unknown_field_is_refused_by_name_whatever_its_value(name):
    for value in (None, 1, "x", {}, []):
        assert refusal(**{name: value}) == (name, "unsupported_parameter")


def test_an_unknown_field_comes_before_other_faults_and_its_name_is_bounded():
    param, code = refusal(**{"x" * 10**6: 1, "temperature": "hot"})
    assert (len(param), code) == (65, "unsupported_parameter")


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_field_without_effect_is_accepted_only_at_its_neutral_values(name):
    for value in (*NEUTRAL[name], None):
        parse_request({"messages": [USER], name: value})
    for value in (10**6, "other", {"type": "json_object"}, [1], 0.5, -1):
        assert refusal(**{name: value}) == (name, "unsupported_parameter")


def test_a_refusal_names_types_of_json_and_not_of_python():
    for fields, message in (
        ({"messages": [None]}, "messages[0]: Input should be an object"),
        ({"stream_options": []}, "stream_options: Input should be an object"),
        ({"response_format": 1}, 'response_format: only {"type": "text"} is supported'),
        ({"tool_choice": {}}, 'tool_choice: only "none" or "auto" is supported'),
        ({"store": 1}, "store: only false is supported"),
    ):
        with pytest.raises(ApiError) as caught:
            read({"messages": [USER], **fields})
        assert caught.value.message == message


def test_true_is_not_the_number_one():
    assert refusal(n=True) == ("n", "unsupported_parameter")
    assert refusal(logprobs=0) == ("logprobs", "unsupported_parameter")
    assert parse_request({"messages": [USER], "presence_penalty": 0.0})


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_a_description_of_the_request_is_ignored(name):
    for value in ("x", {"a": "b"}, None):
        assert parse_request({"messages": [USER], name: value}).messages[0].content == "Hello!"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 10**9), ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", 1.5),
        ("max_tokens", "8"), ("max_tokens", True), ("max_completion_tokens", 10**9),
        ("temperature", -0.1), ("temperature", 10.1), ("temperature", "1"), ("temperature", True),
        ("top_p", 0), ("top_p", 1.1), ("top_k", -1), ("top_k", 1.0), ("min_p", 1),
        ("repetition_penalty", 0.9), ("repetition_penalty", 11), ("seed", 2**63),
        ("seed", -(2**63) - 1), ("seed", 1.0), ("seed", "1"), ("stream", 1), ("stream", "true"),
        ("model", 1), ("model", ["m0"]), ("prompt_cache_key", 1), ("prompt_cache_key", "x" * 257),
        ("messages", []), ("messages", "Hello!"), ("messages", {}), ("messages", None),
        ("stop", 1), ("stop", {"a": "b"}), ("stop", ["a"] * 5), ("stop", ["a"] * 10**5),
    ],
)  # fmt: skip
def test_a_value_of_another_type_or_range_is_refused_by_name(field, value):
    assert refusal(**{field: value}) == (field, "invalid_value")


@pytest.mark.parametrize("stop", ["", ["a", ""], ["x" * 257], [1], [None]])
def test_a_stop_string_is_a_short_text(stop):
    param, code = refusal(stop=stop)
    assert param.startswith("stop[")
    assert code == "invalid_value"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "content": "x"}, {"role": "System", "content": "x"}, {"role": "user"},
        {"role": "", "content": "x"}, {"content": "x"}, {"role": "user", "content": None},
        {"role": "user", "content": 1}, {"role": "user", "content": {"text": "x"}},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "user", "content": [{"type": "text", "text": 1}]},
        {"role": "user", "content": ["x"]}, {"role": "user", "content": "x", "name": "Ada"},
        {"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]},
        {"role": "user", "content": "x", "train": True}, "x", None, [],
        {"role": "user", "content": " \n"}, {"role": "user", "content": ""},
        {"role": "user", "content": []},
    ],
    ids=str,
)  # fmt: skip
def test_a_message_that_is_no_turn_of_a_conversation_is_refused_with_its_place(message):
    param, _ = refusal(messages=[USER, message])
    assert param.startswith("messages[1]")


def test_a_conversation_has_one_system_message_at_its_start_and_ends_with_the_user():
    system, reply = {"role": "system", "content": "x"}, {"role": "assistant", "content": "x"}
    assert refusal(messages=[USER, system, USER]) == ("messages[1].role", "invalid_value")
    assert refusal(messages=[system, system, USER]) == ("messages[1].role", "invalid_value")
    assert refusal(messages=[USER, reply]) == ("messages[1].role", "invalid_value")
    assert refusal(messages=[system]) == ("messages[0].role", "invalid_value")


def test_messages_are_bounded_in_number():
    assert refusal(messages=[USER] * (MAX_MESSAGES + 1)) == ("messages", "invalid_value")
    assert len(parse_request({"messages": [USER] * MAX_MESSAGES}).turns()) == MAX_MESSAGES


def test_texts_become_turns_as_those_of_a_data_file_do():
    parts = [{"type": "text", "text": " a\r\n"}, {"type": "text", "text": "b\rc "}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "assistant", "content": "", "refusal": None, "tool_calls": [], "annotations": []},
        {"role": "user", "content": parts, "name": None},
    ]
    turns = parse_request({"messages": messages}).turns()
    assert [(turn.role, turn.text) for turn in turns] == [
        ("system", "Be brief."),
        ("assistant", ""),
        ("user", "a\nb\nc"),
    ]
    assert len(parse_request({"messages": [{"role": "system", "content": ""}, USER]}).turns()) == 1


def test_settings_of_a_request_replace_those_of_the_model():
    asked = {
        "temperature": 2, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "repetition_penalty": 1.5,
        "max_completion_tokens": 7, "max_tokens": 7, "seed": -(2**63), "stop": "a",
    }  # fmt: skip
    request = parse_request({"messages": [USER], **asked})
    assert request.settings(DEFAULTS).model_dump() == {
        "temperature": 2.0, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "repetition_penalty": 1.5,
        "max_new_tokens": 7,
    }  # fmt: skip
    assert (request.seed, request.stop) == (-(2**63), ["a"])
    nothing = dict.fromkeys(asked)
    assert parse_request({"messages": [USER], **nothing}).settings(DEFAULTS) == DEFAULTS
    assert refusal(max_tokens=1, max_completion_tokens=2) == ("max_tokens", "invalid_value")
