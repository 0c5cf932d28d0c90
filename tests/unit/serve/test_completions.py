"""Chat completions: the objects and events of an answer, its errors, and the access log."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal

import pytest
from starlette.testclient import TestClient

from convo_cli.errors import ModelError
from convo_cli.serve.jobs import EngineFaultError, Failed, Finished, Piece
from convo_cli.serve.wire.exchange import MAX_REPLY_CHARACTERS
from convo_cli.text.bounded import client as bounded
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import make_template
from tests.hostile_texts import valid_texts
from tests.served import HELLO, LOCAL, PATH, ScriptedEngine, make_api

STREAM = {**HELLO, "stream": True}
USAGE = {"stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder()


@pytest.fixture
def serve(encoder):
    def make(*engines, **options):
        return TestClient(make_api(encoder, *engines, **options), base_url=LOCAL)

    return make


def events(response):
    """Return the objects of a stream; each event is one line of data."""
    assert response.headers["content-type"].startswith("text/event-stream")
    *blocks, rest = response.content.split(b"\n\n")
    assert rest == b""
    assert blocks.pop() == b"data: [DONE]"
    for block in blocks:
        assert re.fullmatch(rb"data: [\x20-\x7e]+", block), block
    return [json.loads(block.removeprefix(b"data: ")) for block in blocks]


def text_of(chunks):
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", ())]
    return "".join(delta.get("content", "") for delta in deltas)


def test_a_whole_answer_is_an_object_of_the_api(serve):
    body = serve(ScriptedEngine("Good ", "morning")).post(PATH, json=HELLO).json()
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{24}", body.pop("id"))
    assert body.pop("created") > 1.7e9
    num_prompt = body["usage"]["prompt_tokens"]
    assert body == {
        "object": "chat.completion",
        "model": "m0",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Good morning", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": num_prompt,
            "completion_tokens": 3,
            "total_tokens": num_prompt + 3,
            "prompt_tokens_details": {"cached_tokens": 1},
        },
        "convo": {"dropped_turns": 0},
    }


def test_a_stream_has_the_pieces_the_reason_and_the_usage_if_it_is_asked_for(serve):
    engine = ScriptedEngine("Good ", "morning", Finished("length", 2, 0))
    chunks = events(serve(engine).post(PATH, json={**STREAM, **USAGE}))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert text_of(chunks) == "Good morning"
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-2]["convo"] == chunks[-1]["convo"] == {"dropped_turns": 0}
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]) == ([], 2)
    without = events(serve(engine).post(PATH, json=STREAM))
    assert all("usage" not in chunk for chunk in without)
    assert len(without) == len(chunks) - 1


@pytest.mark.parametrize("name", valid_texts())
def test_no_text_of_the_model_can_forge_an_event_or_change_on_the_way(serve, name):
    text = valid_texts()[name]
    pieces = [text[:3], text[3:], "\n\ndata: [DONE]\n\n", "\r\rdata: {}\r\n\r\n", "\u2028\x85"]
    pieces = [piece for piece in pieces if piece]
    client = serve(ScriptedEngine(*pieces))
    assert text_of(events(client.post(PATH, json=STREAM))) == "".join(pieces)
    body = client.post(PATH, json=HELLO).json()
    assert body["choices"][0]["message"]["content"] == "".join(pieces)


def test_half_of_a_surrogate_pair_in_a_reply_breaks_no_answer(serve):
    client = serve(ScriptedEngine("a\ud800b"))
    assert client.post(PATH, json=HELLO).status_code == 200
    assert text_of(events(client.post(PATH, json=STREAM))) == "a\ud800b"


def test_the_job_has_the_fields_of_the_request(serve, encoder):
    engine = ScriptedEngine()
    asked = {"seed": -5, "stop": ["a", "b"], "prompt_cache_key": "k", "temperature": 0, "top_k": 2}
    serve(engine).post(PATH, json={**HELLO, **asked, "max_tokens": 3})
    job = engine.jobs[0]
    assert (job.seed, job.stop, job.cache_key) == (-5, ("a", "b"), "k")
    assert (job.settings.temperature, job.settings.top_k, job.query.max_new_tokens) == (0, 2, 3)
    serve(engine).post(PATH, json=HELLO)
    serve(engine).post(PATH, json=HELLO)
    assert engine.jobs[1].seed != engine.jobs[2].seed
    assert (engine.jobs[1].cache_key, engine.jobs[1].stop) == (None, ())
    assert engine.jobs[1].settings.max_new_tokens == 8  # of the model


def test_a_model_is_one_of_those_listed(serve):
    engines = ScriptedEngine("a"), ScriptedEngine("b")
    client = serve(*engines)
    ids = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert ids == ["m0", "m1"]
    assert client.get("/v1/models/m1").json()["id"] == "m1"
    assert client.post(PATH, json={**HELLO, "model": "m1"}).json()["model"] == "m1"
    assert (len(engines[0].jobs), len(engines[1].jobs)) == (0, 1)
    for name in ("../../x", "m2", "", "M0", "m0\n", "/etc/passwd", "<b>"):
        response = client.post(PATH, json={**HELLO, "model": name})
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert client.get("/v1/models/m2").json()["error"]["code"] == "model_not_found"
    assert client.post(PATH, json=HELLO).json()["error"]["param"] == "model"


def test_the_list_of_models_says_what_the_page_needs(serve, encoder):
    from convo_cli.text.contract import contract_sha256

    (model,) = serve().get("/v1/models").json()["data"]
    assert (model["object"], model["owned_by"]) == ("model", "convo")
    assert model["convo"]["window"] == encoder.max_length
    assert model["convo"]["contract"] == contract_sha256(encoder)
    assert model["convo"]["sampling"]["max_new_tokens"] == 8
    assert model["convo"]["title"] is None


def test_a_prompt_over_the_window_is_refused_and_a_history_over_it_is_cut(serve):
    engine = ScriptedEngine()
    client = serve(engine)
    long = {"role": "user", "content": "word " * 500}
    response = client.post(PATH, json={"messages": [long]})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
    assert error["param"] == "messages"
    assert engine.jobs == []
    history = [long, {"role": "assistant", "content": "x"}, *HELLO["messages"]]
    body = client.post(PATH, json={"messages": history}).json()
    assert body["convo"] == {"dropped_turns": 2}
    (last,) = [c["convo"] for c in events(client.post(PATH, json={**STREAM, "messages": history}))
               if "convo" in c]  # fmt: skip
    assert last == {"dropped_turns": 2}


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_reply_that_fails_at_once_is_a_500_without_details(serve, is_stream):
    lines: list[str] = []
    error = ModelError("/secret/model: torch 2.13 failed on the text", hint="x")
    client = serve(ScriptedEngine(Failed(error)), log_fault=lines.append)
    response = client.post(PATH, json={**HELLO, "stream": is_stream})
    assert response.status_code == 500
    assert response.json()["error"] == {
        "message": "the model failed to compute the reply",
        "type": "server_error",
        "param": None,
        "code": "reply_failed",
    }
    assert lines == ["a reply failed: /secret/model: torch 2.13 failed on the text"]
    serve(ScriptedEngine(Failed(EngineFaultError("x"))), log_fault=lines.append).post(
        PATH, json=HELLO
    )
    assert len(lines) == 1  # the engine reports its own


def test_a_reply_that_fails_later_ends_its_stream_with_an_error(serve):
    client = serve(ScriptedEngine("Good ", Failed(ModelError("x"))))
    *chunks, last = events(client.post(PATH, json=STREAM))
    assert text_of(chunks) == "Good "
    assert last["error"]["code"] == "reply_failed"


def test_a_fault_of_a_handler_is_a_500_and_its_traceback_has_no_text(serve):
    class Faulty(ScriptedEngine):
        def submit(self, job):
            raise RuntimeError(job.stop[0])

    lines: list[str] = []
    client = serve(Faulty(), log_fault=lines.append)
    for _ in range(2):
        response = client.post(PATH, json={**HELLO, "stop": "my secret"})
        assert response.status_code == 500
        assert set(response.json()["error"].values()) == {
            "the server failed to answer; its log says why", "server_error", None
        }  # fmt: skip
    assert len(lines) == 2
    assert lines[0].startswith("Traceback")
    assert lines[0].endswith("RuntimeError")
    assert "submit" in lines[0]
    assert "secret" not in lines[0]
    assert client.get("/health").status_code == 200


def test_a_full_queue_is_a_429_with_retry_after(serve):
    engine = ScriptedEngine(room=0)
    response = serve(engine).post(PATH, json=HELLO)
    assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_that_takes_too_long_is_a_503_and_frees_its_row(serve, is_stream):
    engine = ScriptedEngine(is_holding=True)
    client = serve(engine, max_seconds=0.2)
    response = client.post(PATH, json={**HELLO, "stream": is_stream})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "timeout")
    assert int(response.headers["retry-after"]) > 0
    assert engine.cancelled == engine.jobs


def test_a_stopping_server_refuses_new_requests(encoder):
    api = make_api(encoder)
    api.completions.is_draining = True
    response = TestClient(api, base_url=LOCAL).post(PATH, json=HELLO)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "stopping")
    assert int(response.headers["retry-after"]) > 0


def test_a_reply_of_any_length_takes_bounded_memory(serve):
    piece = "x" * (MAX_REPLY_CHARACTERS // 4)
    engine = ScriptedEngine(*[piece] * 40)
    response = serve(engine).post(PATH, json=HELLO)
    assert (response.status_code, response.json()["error"]["code"]) == (500, "reply_too_long")
    assert engine.cancelled == engine.jobs


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_leaves_frees_its_row(encoder, is_stream):
    engine = ScriptedEngine(is_holding=True)
    api = make_api(encoder, engine)
    body = json.dumps({**HELLO, "stream": is_stream}).encode()
    scope = {
        "type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(),
        "query_string": b"", "root_path": "", "server": ("127.0.0.1", 8000),
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
    }  # fmt: skip
    sent = []

    async def run():
        parts = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive():
            if (part := next(parts, None)) is not None:
                return part
            while not engine.jobs:
                await asyncio.sleep(0.01)
            if is_stream:
                engine.jobs[0].emit(Piece("Good "))
                await asyncio.sleep(0.05)
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        await asyncio.wait_for(api(scope, receive, send), 20)

    asyncio.run(run())
    assert engine.cancelled == engine.jobs
    assert bool(sent) == is_stream


def test_the_access_log_has_one_line_for_a_request_and_no_text(serve):
    lines: list[str] = []
    client = serve(ScriptedEngine("a secret reply"), log_request=lines.append)
    client.post(PATH, json={"messages": [{"role": "user", "content": "my secret"}]})
    client.get("/nope%1b[2J%0Aforged é" + "x" * 200, headers={"User-Agent": "\x1b[2Jagent"})
    assert re.fullmatch(rf"POST {PATH} 200 m0 \d+\+3 tokens \d+\.\d\d s", lines[0])
    assert re.fullmatch(
        r"GET /nope\\x1b\[2J\\nforged \\xe9x+\.\.\. 404 not_found \d+\.\d\d s", lines[1]
    )
    assert len(lines) == 2
    assert all(len(line) < 200 and line.isascii() for line in lines)
    assert "secret" not in "".join(lines)


def with_foreign_template(make_encoder):
    """Return an encoder whose template is rendered in the process with limits."""
    tokenizer, template = make_encoder().tokenizer, make_encoder().template
    tokenizer.chat_template = template.chat_template
    native = make_template("native", tokenizer, agreement="none")
    return DialogueEncoder(tokenizer, native, max_length=128)


def test_the_process_that_renders_is_started_again_after_it_is_killed(make_encoder):
    client = TestClient(make_api(with_foreign_template(make_encoder)), base_url=LOCAL)
    before = bounded._process()
    os.kill(before._popen.pid, signal.SIGKILL)
    before._popen.wait(20)
    assert client.post(PATH, json=HELLO).status_code == 200
    assert bounded._processes[0] is not before
    assert bounded._processes[0]._is_ready


def test_a_template_beyond_its_limits_is_a_400_and_the_next_request_is_answered(
    make_encoder, monkeypatch
):
    client = TestClient(make_api(with_foreign_template(make_encoder)), base_url=LOCAL)

    def ended(task, request):
        raise bounded.EndedError(-int(signal.SIGKILL))

    with monkeypatch.context() as patch:
        patch.setattr(bounded, "ask", ended)
        response = client.post(PATH, json=HELLO)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_messages")
    assert "too much time" in response.json()["error"]["message"]
    assert client.post(PATH, json=HELLO).status_code == 200
