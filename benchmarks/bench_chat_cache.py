"""Time to the first token of a chat's next turn: with the kept row, and by `generate`.

    python benchmarks/bench_chat_cache.py models/smollm2 --history 50 1000
    python benchmarks/bench_chat_cache.py mini --history 480

A model is a size of `work.SIZES` with random weights, or a folder. A conversation gets a reply of
16 tokens, and then the next message. The time of the next reply's first token is measured: the
whole call of `Generator.stream`, with rendering and encoding of the history, with the kept row and
without ("reread"), and transformers' `generate` of one token from the ids of the same prompt.
The sides take turns: A B C A B C. The table has medians and ranges of CPU milliseconds, medians of
wall milliseconds, and the median divided by that of the kept row. The proof that the row may be
extended runs once in a process, before.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import work
from bench_generate import open_model

if TYPE_CHECKING:
    from convo_cli.data.dialogue import Turn
    from convo_cli.model.decoding.generator import Generator

SAID = "I like old maps, and trains that cross the mountains at night."
NEXT = "Which of them would you take, and why?"
REPLY_LENGTH = 16


@dataclass
class Side:
    """One way to the first token, and its seconds of CPU and wall time."""

    name: str
    prepare: Callable[[], object]
    run: Callable[[], object]
    seconds: list[tuple[float, float]] = field(default_factory=list)

    def measure(self) -> None:
        """Run it once."""
        self.prepare()
        wall, cpu = time.perf_counter(), time.process_time()
        self.run()
        self.seconds.append((time.process_time() - cpu, time.perf_counter() - wall))

    def milliseconds(self, which: int) -> tuple[float, float, float]:
        """Return median, minimum and maximum of the CPU time (0) or the wall time (1)."""
        each = [1e3 * one[which] for one in self.seconds]
        return statistics.median(each), min(each), max(each)


def main() -> None:
    """Measure each model and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=["mini"])
    parser.add_argument("--history", nargs="+", type=int, default=[50, 480], help="tokens")
    parser.add_argument("--data", type=Path, default=work.FOLDER / "train.jsonl")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    for name in arguments.models:
        generator = open_model(name, arguments.data)
        tables = [sides_of(generator, length) for length in arguments.history]
        for _ in range(arguments.rounds):
            for sides in tables:
                for side in sides:
                    side.measure()
        print(f"{Path(name).name}, ms{'CPU (range)':>43} {'wall':>8} {'kept row is':>12}")
        for sides in tables:
            shortest = sides[0].milliseconds(0)[0]
            for side in sides:
                median, least, most = side.milliseconds(0)
                row = f"{side.name:32} {median:9.1f} ({least:.1f}-{most:.1f})".ljust(58)
                print(f"{row}{side.milliseconds(1)[0]:9.1f} {median / shortest:11.2f}x")
        cpu, wall = (
            tables[-1][0].milliseconds(n)[0] / tables[0][0].milliseconds(n)[0] for n in (0, 1)
        )
        print(f"kept row, last history relative to the first: {cpu:.2f}x CPU, {wall:.2f}x wall")


def sides_of(generator: Generator, length: int) -> list[Side]:
    """Return the sides for a history of about this many tokens, each run once."""
    from convo_cli.config.schema import GenerationSettings
    from convo_cli.data.dialogue import Turn

    few = GenerationSettings(temperature=0.0, max_new_tokens=REPLY_LENGTH)
    one = GenerationSettings(temperature=0.0, max_new_tokens=1)
    before = history_of(generator, length - REPLY_LENGTH)
    reply = generator.stream(before, few)
    history = [*before, Turn("assistant", reply.text.strip() or "Yes"), Turn("user", NEXT)]
    ids = generator.query(history, one).ids
    trace: Any = generator.stream(history, one).trace
    name = f"{trace.num_reused} + {len(ids) - trace.num_reused} tokens"

    def keep_row() -> None:
        generator.drop_kept_row()
        generator.stream(before, few)

    sides = [
        Side(f"{name}, kept row", keep_row, lambda: generator.stream(history, one)),
        Side(f"{name}, reread", generator.drop_kept_row, lambda: generator.stream(history, one)),
        Side(f"{name}, generate", lambda: None, lambda: by_generate(generator, ids)),
    ]
    for side in sides:
        side.measure()
        side.seconds.clear()
    return sides


def history_of(generator: Generator, length: int) -> list[Turn]:
    """Return turns that end with a user turn and have at most this many tokens as a prompt."""
    from convo_cli.data.dialogue import Turn

    turns = [Turn("user", "Hi")]
    longer = [Turn("user", SAID)]
    while len(generator.encoder.prompt(longer, max_new_tokens=1).ids) <= length:
        turns = longer
        answers = [Turn("assistant", f"{len(turns)}. {SAID}"), Turn("user", SAID)]
        longer = [*turns, *answers]
    return turns


def by_generate(generator: Generator, ids: Sequence[int]) -> None:
    """Compute the first token with transformers."""
    import torch

    model: Any = generator.model
    row = torch.tensor([ids])
    with torch.inference_mode():
        model.generate(
            row,
            attention_mask=torch.ones_like(row),
            max_new_tokens=1,
            do_sample=False,
            pad_token_id=generator.encoder.pad_id,
        )


if __name__ == "__main__":
    main()
