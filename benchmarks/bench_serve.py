"""Speed and soak of the engine that answers requests of several users together.

    python benchmarks/bench_serve.py speed                 # tokens per CPU second by users
    python benchmarks/bench_serve.py soak                  # 1,000 requests, cancels and errors
    python benchmarks/bench_serve.py soak --http           # the same through a real server

The model has random weights (`work.SIZES`). "speed": each user sends one request after the other;
prompts have 20 to 300 tokens, replies 64. The same requests are answered one after the other by
`Generator.answer`. Both alternate: A B A B; medians. "soak": a greedy reply must equal the one
given alone, up to a tie of two logits.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import work
from bench_generate import open_model
from serve_soak import soak_engine, soak_http

if TYPE_CHECKING:
    from convo_cli.config.schema import GenerationSettings
    from convo_cli.model.decoding.generator import Generator
    from convo_cli.model.decoding.queries import Query


def main() -> None:
    """Run one of the two benchmarks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["speed", "soak"])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--requests", type=int, default=None, help="of each user; of the soak")
    parser.add_argument("--tokens", type=int, default=64, help="of each reply")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--http", action="store_true")
    arguments = parser.parse_args()
    generator = open_model(arguments.model, work.FOLDER / "train.jsonl")
    if arguments.kind == "speed":
        measure_speed(generator, arguments)
    else:
        soak = soak_http if arguments.http else soak_engine
        soak(generator, arguments.requests or 1000)


# Speed


def measure_speed(generator: Generator, arguments: argparse.Namespace) -> None:
    """Print tokens per CPU second for each number of users."""
    from convo_cli.config.schema import GenerationSettings

    settings = GenerationSettings(
        temperature=arguments.temperature, max_new_tokens=arguments.tokens
    )
    generator.encoder.stop_ids = frozenset()  # replies of equal length
    print(f"{'users':>5} {'engine':>24} {'one by one':>24} {'ratio':>6}  other ids")
    for users in arguments.users:
        count = users * (arguments.requests or max(6, 12 // users))
        queries = queries_of(generator, count, arguments.tokens)
        speeds: list[list[float]] = [[], []]
        made: list[list[list[int]]] = [[], []]
        for _ in range(arguments.rounds):
            for side, run in enumerate((by_engine, one_by_one)):
                started = time.process_time()
                made[side] = run(generator, queries, settings, users)
                seconds = time.process_time() - started
                speeds[side].append(sum(map(len, made[side])) / seconds)
        differ = sum(a != b for a, b in zip(*made, strict=True))
        engine, alone = map(statistics.median, speeds)
        print(
            f"{users:5} {spread(speeds[0]):>24} {spread(speeds[1]):>24} {engine / alone:5.2f}x"
            f"  {differ} of {count}",
            flush=True,
        )


def by_engine(
    generator: Generator, queries: Sequence[Query], settings: GenerationSettings, users: int
) -> list[list[int]]:
    """Answer the queries through an engine, at most one of each user at a time."""
    from convo_cli.serve.engine import Engine
    from convo_cli.serve.jobs import Failed, Finished, Job

    engine = Engine(generator)
    made: list[list[int]] = [[] for _ in queries]
    free = threading.Semaphore(users)
    failures = []

    def submit(number: int) -> None:
        def emit(event: object) -> None:
            if isinstance(event, Finished | Failed):
                if isinstance(event, Failed):
                    failures.append(event.error)
                made[number] = list(task.request.ids)
                free.release()

        job = Job(queries[number], settings, 0, (), None, emit)
        engine.submit(job)
        task = engine._tasks[job]

    for number in range(len(queries)):
        free.acquire()
        submit(number)
    engine.drain(600)
    assert not failures, failures
    return made


def one_by_one(
    generator: Generator, queries: Sequence[Query], settings: GenerationSettings, users: int
) -> list[list[int]]:
    """Answer each query alone."""
    return [list(generator.answer([query], settings)[0].ids) for query in queries]


def queries_of(generator: Generator, count: int, tokens: int) -> list[Query]:
    """Return random prompts of 20 to 300 tokens."""
    from convo_cli.model.decoding.queries import Query

    draws = random.Random(count)
    ids = [
        n for n in range(len(generator.encoder.tokenizer)) if not generator.encoder.is_special(n)
    ]
    longest = min(300, generator.encoder.max_length - tokens)
    return [
        Query(tuple(draws.choices(ids, k=draws.randint(20, longest))), tokens, 0)
        for _ in range(count)
    ]


def spread(numbers: Sequence[float]) -> str:
    """Return the median and the range."""
    return f"{statistics.median(numbers):.0f} ({min(numbers):.0f}-{max(numbers):.0f})"


if __name__ == "__main__":
    main()
