"""A server with a real model under mixed load: nothing is lost or mixed, and memory stays flat."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from convo_cli.config.schema import GenerationSettings
from convo_cli.data.dialogue import Turn
from convo_cli.model.decoding.generator import Generator
from convo_cli.serve.api import Api
from convo_cli.serve.engine import Engine
from convo_cli.serve.served_models import ServedModel
from tests.random_models import FAMILIES, build
from tests.served import PATH, connect, post, running

GREEDY = GenerationSettings(temperature=0.0, max_new_tokens=24)
NUM_REQUESTS, NUM_USERS = 1000, 8
MIB = 2**20


@pytest.mark.slow
def test_a_thousand_mixed_requests_are_answered_as_if_each_were_alone(make_encoder):
    encoder = make_encoder(max_length=96)
    generator = Generator(build(*FAMILIES["GPT-2"], len(encoder.tokenizer)), encoder)
    texts = [" ".join(f"word{k}" for k in range(1 + number % 9)) for number in range(40)]
    alone = generator.replies([[Turn("user", text)] for text in texts], GREEDY)
    expected = [reply.text for reply in alone]
    faults: list[str] = []

    def note(fault: Exception) -> None:
        faults.append(repr(fault))

    engine = Engine(generator, max_rows=NUM_USERS, on_fault=note)
    api = Api([ServedModel("tiny", generator, engine, GREEDY)], log_fault=faults.append)
    with running(api, engine) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

        def ask(number: int) -> str:
            """Send one request, whose kind its number selects; return the kind."""
            choose = random.Random(number)
            place = choose.randrange(len(texts))
            kind = choose.choice(("whole", "whole", "stream", "stream", "gone", "bad", "long"))
            text = texts[place] * (200 if kind == "long" else 1)
            body = {"messages": [{"role": "user", "content": text}], "temperature": 0}
            if kind == "gone":
                with connect(port, post(json.dumps({**body, "stream": True}).encode())) as opened:
                    opened.recv(1)
            elif kind == "bad":
                assert client.post(PATH, json={**body, "n": 2}).status_code == 400
            elif kind == "long":
                assert client.post(PATH, json=body).status_code == 400
            elif kind == "whole":
                keyed = {**body, "prompt_cache_key": str(number % 5)}
                (choice,) = client.post(PATH, json=keyed).json()["choices"]
                assert choice["message"]["content"] == expected[place]
            else:
                lines = client.post(PATH, json={**body, "stream": True}).text.splitlines()
                events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
                deltas = [event["choices"][0]["delta"].get("content", "") for event in events]
                assert "".join(deltas) == expected[place]
                assert lines[-2:] == ["data: [DONE]", ""]
            return kind

        with ThreadPoolExecutor(NUM_USERS) as users:
            kinds = list(users.map(ask, range(NUM_REQUESTS // 5)))
            before = psutil.Process().memory_info().rss
            kinds += list(users.map(ask, range(NUM_REQUESTS // 5, NUM_REQUESTS)))
        growth = psutil.Process().memory_info().rss - before
    assert len(kinds) == NUM_REQUESTS
    assert set(kinds) == {"whole", "stream", "gone", "bad", "long"}
    assert faults == []
    assert growth < 48 * MIB
