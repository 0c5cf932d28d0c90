"""Soak tests of `bench_serve.py`: requests of mixed lengths with cancels, disconnects and errors.

Greedy replies are compared with those given alone. A reply that differs is a tie if the two
best logits are almost equal at a token of the reply given alone.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from convo_cli.model.decoding.generator import Generator

TIE = 1e-3
USERS = 12
COMPARED = 1000
"""Greedy replies that are also given alone, after all requests."""


@dataclass
class Soak:
    """Counts of the ends of requests, and the memory of the process."""

    count: int
    ends: Counter[str] = field(default_factory=Counter)
    done: list[tuple[Any, str]] = field(default_factory=list)
    """Prompts and texts of whole replies."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    started: float = field(default_factory=time.monotonic)

    def end(self, how: str, prompt: Any = None, text: str = "") -> None:
        """Count a request that ended, and print a line of the table now and then."""
        with self.lock:
            self.ends[how] += 1
            if prompt is not None:
                self.done.append((prompt, text))
            total = sum(self.ends.values())
            if total == 1 or total % max(1, self.count // 10) == 0:
                size = psutil.Process().memory_info().rss / 2**20
                print(f"{total:8} {time.monotonic() - self.started:8.0f} {size:10.1f}", flush=True)

    def run(self, one: Callable[[int], None]) -> None:
        """Send all requests, several at a time."""
        print(f"{'requests':>8} {'seconds':>8} {'RSS, MiB':>10}")
        with ThreadPoolExecutor(USERS) as pool:
            list(pool.map(one, range(self.count)))

    def report(self, alone: Callable[[Any], tuple[str, Callable[[], bool]]]) -> None:
        """Print the counts, and compare replies chosen at random with those given alone."""
        found: Counter[str] = Counter()
        for prompt, text in random.Random(0).sample(self.done, min(COMPARED, len(self.done))):
            expected, is_tie = alone(prompt)
            found["equal" if text == expected else "tie" if is_tie() else "WRONG"] += 1
        lost = self.count - sum(self.ends.values())
        print(f"{dict(self.ends)}; lost {lost}; compared: {dict(found)}", flush=True)


def soak_engine(generator: Generator, count: int) -> None:
    """Send requests to an engine; a tenth is cancelled, and some cannot be computed."""
    from convo_cli.config.schema import GenerationSettings
    from convo_cli.model.decoding.queries import Query
    from convo_cli.serve.engine import Engine
    from convo_cli.serve.jobs import Failed, Job, Piece

    settings = GenerationSettings(temperature=0.0)
    sampling = GenerationSettings(temperature=0.9, top_p=0.9)
    engine, soak = Engine(generator), Soak(count)
    every = range(len(generator.encoder.tokenizer))
    words = [token for token in every if not generator.encoder.is_special(token)]

    def one(number: int) -> None:
        draws = random.Random(number)
        ids = draws.choices(words, k=draws.randint(5, generator.encoder.max_length - 64))
        is_bad = draws.random() < 0.03
        if is_bad:
            ids[-1] = 10**9  # no such token
        query = Query(tuple(ids), draws.randint(1, 32), 0)
        cancel_after = draws.randint(0, 8) if draws.random() < 0.1 else None
        is_sampled = draws.random() < 0.2
        over, pieces = threading.Event(), list[str]()
        ends = []

        def emit(event: object) -> None:
            if isinstance(event, Piece):
                pieces.append(event.text)
                if cancel_after is not None and len(pieces) > cancel_after:
                    over.set()
            else:
                ends.append(event)
                over.set()

        key = draws.choice([None, None, str(number % USERS)])
        job = Job(query, sampling if is_sampled else settings, number, (), key, emit)
        engine.submit(job)
        assert over.wait(300), "a request was lost"
        if not ends:
            engine.cancel(job)
            soak.end("cancelled")
        elif isinstance(ends[0], Failed):
            soak.end("failed" if is_bad else f"WRONG: {ends[0].error}")
        else:
            soak.end("whole", None if is_sampled else query, "".join(pieces))

    soak.run(one)
    engine.drain(60)
    soak.report(lambda query: by_answer(generator, query, settings))
    print(f"faults of the engine: {engine.num_faults}")


def soak_http(generator: Generator, count: int) -> None:
    """Send requests to a real server; some clients disconnect, and some requests are refused."""
    import httpx

    from convo_cli.config.schema import GenerationSettings
    from convo_cli.data.dialogue import Turn
    from convo_cli.serve.api import Api
    from convo_cli.serve.engine import Engine
    from convo_cli.serve.running import Server
    from convo_cli.serve.served_models import ServedModel
    from convo_cli.serve.wire.sockets import addresses_of, listen

    settings = GenerationSettings(temperature=0.0, max_new_tokens=64)
    engine, soak = Engine(generator), Soak(count)
    model = ServedModel("soak", generator, engine, settings)
    listening = listen("127.0.0.1", addresses_of("127.0.0.1"), 0)
    api = Api([model], hosts=[], api_key=None, log_request=None, log_fault=print)
    server = Server(api, [engine], listening)
    server.start()
    client = httpx.Client(base_url=listening.url, timeout=300)
    vocabulary = [word for text in TEXTS for word in text.split()]

    def one(number: int) -> None:
        draws = random.Random(number)
        text = f"{number} " + " ".join(draws.choices(vocabulary, k=draws.randint(1, 60)))
        tokens = draws.randint(1, 32)
        is_bad = draws.random() < 0.05
        body = {
            "model": "soak",
            "messages": [{"role": "nobody" if is_bad else "user", "content": text}],
            "max_tokens": tokens,
            "temperature": 0,
            "stream": draws.random() < 0.7,
        }
        leaves_after = draws.randint(0, 8) if draws.random() < 0.1 else None
        path = "/v1/chat/completions"
        if not body["stream"]:
            answer = client.post(path, json=body)
            if answer.status_code != 200:
                soak.end("refused" if is_bad else f"WRONG: {answer.status_code}")
                return
            said = answer.json()["choices"][0]["message"]["content"]
            soak.end("whole", (text, tokens), said)
            return
        said, is_over = "", False
        with client.stream("POST", path, json=body) as answer:
            if answer.status_code != 200:
                soak.end("refused" if is_bad else f"WRONG: {answer.status_code}")
                return
            for place, line in enumerate(answer.iter_lines()):
                if leaves_after is not None and place > 2 * leaves_after:
                    soak.end("left")
                    return
                if line.startswith("data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        said += choice["delta"].get("content") or ""
                is_over = is_over or line == "data: [DONE]"
        soak.end("whole" if is_over else "WRONG: cut", (text, tokens), said)

    soak.run(one)
    server.stop()

    def alone(prompt: tuple[str, int]) -> tuple[str, Callable[[], bool]]:
        text, tokens = prompt
        limited = settings.model_copy(update={"max_new_tokens": tokens})
        return by_answer(generator, model.query([Turn("user", text)], limited), limited)

    soak.report(alone)
    print(f"faults of the engine: {engine.num_faults}")


def by_answer(generator: Generator, query: Any, settings: Any) -> tuple[str, Callable[[], bool]]:
    """Return the text of the reply given alone, and a function that finds ties in it."""
    (reply,) = generator.answer([query], settings)
    return reply.text, partial(has_tie, generator, query, reply.ids)


def has_tie(generator: Generator, query: Any, ids: tuple[int, ...]) -> bool:
    """Return whether the two best logits are almost equal at a token of a reply."""
    import torch

    row = torch.tensor([[*query.ids, *ids]])
    with torch.inference_mode():
        logits = generator.model(row, use_cache=False).logits[0, len(query.ids) - 1 : -1]
    best = logits.topk(2).values
    return bool(((best[:, 0] - best[:, 1]) < TIE).any())


TEXTS = ("good morning what a day it was", "tell me more about that please", "yes no why not")
