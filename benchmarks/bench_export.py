"""Replies by exports in their own runtimes and by convo: CPU time, size, and what is equal.

    python benchmarks/bench_export.py runs/demo runs/smollm2 --keep exports

Each run is exported in every format and type whose packages are installed, by `convo export`, so
that each export has a receipt; ``--keep`` names a folder whose exports are used again. Every export
is opened by its format's `open_runtime` in a process on one CPU with one thread; convo's generator
is one more. In each round every process answers two prompts of random ids that no cache has seen:
one with 1 token, which is the time to the first token, and one with ``--tokens``. The difference is
divided by the further tokens. The processes take turns: A B C A B C.

The table has the medians of CPU milliseconds, and their ratios to convo's; the bytes of the weights
and of the folder; and from the receipt the texts, prompts and tokens that are equal.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import work

EXPORTS = (
    *(("gguf", "fp32"), ("gguf", "fp16"), ("gguf", "q8_0")),
    *(("ctranslate2", "fp32"), ("ctranslate2", "int8")),
    *(("onnx", "fp32"), ("huggingface", "fp32")),
)
CONVO = "convo"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
WEIGHTS = {".gguf", ".safetensors", ".bin", ".onnx", ".data"}

Reply = Callable[[Sequence[int], int], Sequence[int]]


@dataclass
class Side:
    """An open runtime in a process, and what it took."""

    name: str
    process: Any
    folder: Path | None
    first: list[float] = field(default_factory=list)
    further: list[float] = field(default_factory=list)
    replies: list[list[int]] = field(default_factory=list)

    def ask(self, ids: Sequence[int], num_tokens: int) -> tuple[list[int], float]:
        """Return a reply and its CPU seconds."""
        self.process.stdin.write(json.dumps([list(ids), num_tokens]) + "\n")
        self.process.stdin.flush()
        reply, seconds = json.loads(self.process.stdout.readline())
        return reply, seconds

    def measure(self, prompts: Sequence[Sequence[int]], num_tokens: int) -> None:
        """Add one round."""
        _, first = self.ask(prompts[0], 1)
        reply, whole = self.ask(prompts[1], num_tokens)
        self.first.append(first)
        self.replies.append(reply)
        if len(reply) > 1:
            self.further.append((whole - first) / (len(reply) - 1))


def main() -> None:
    """Measure each run and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--keep", type=Path, help="folder of the exports")
    parser.add_argument("--formats", nargs="+", default=sorted({name for name, _ in EXPORTS}))
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=24, help="tokens of a reply")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for run in arguments.runs:
            measure(run, arguments.keep or Path(scratch), arguments)


def measure(run: Path, keep: Path, arguments: argparse.Namespace) -> None:
    """Print the rows of one run."""
    exports = {
        f"{name} {dtype}": folder
        for name, dtype in EXPORTS
        if name in arguments.formats and (folder := exported(run, keep, name, dtype))
    }
    dialogue = json.loads((run / "dialogue.json").read_bytes())
    stop, size = min(dialogue["stop_ids"]), vocabulary_size(run)
    chosen = random.Random(0)
    with ExitStack() as stack:
        sides = [stack.enter_context(opened(CONVO, run))]
        sides += [stack.enter_context(opened(name, folder)) for name, folder in exports.items()]
        for number in range(arguments.rounds + 1):  # the first warms up
            prompts = [
                [token for token in chosen.sample(range(size), arguments.prompt) if token != stop]
                for _ in range(2)
            ]
            for side in sides:
                side.measure(prompts, arguments.tokens)
                if number == 0:
                    side.first, side.further, side.replies = [], [], []
        print_table(run.name, sides)


def print_table(run: str, sides: Sequence[Side]) -> None:
    """Print one row for each side."""
    convo = sides[0]
    first, further = statistics.median(convo.first), statistics.median(convo.further)
    print(
        f"{run:18} {'first ms':>9} {'':>6} {'next ms':>8} {'':>6} {'MB':>7} {'folder':>7} "
        f"{'ids here':>9}  receipt"
    )
    for side in sides:
        one, two = statistics.median(side.first), statistics.median(side.further)
        pairs = list(zip(side.replies, convo.replies, strict=True))
        equal = sum(mine == theirs for mine, theirs in pairs)
        weights, whole = sizes(side.folder) if side.folder else (0.0, 0.0)
        shown = receipt(side.folder) if side.folder else ""
        print(
            f"{side.name:18} {1e3 * one:9.1f} {one / first:5.2f}x {1e3 * two:8.2f} "
            f"{two / further:5.2f}x {weights:7.1f} {whole:7.1f} {equal:5}/{len(pairs):<3}  {shown}"
        )


def receipt(folder: Path) -> str:
    """Return the counts of a receipt."""
    file = folder / "receipt.json"
    stated = json.loads(file.read_bytes()) if file.exists() else {}
    counts = [
        f"{part.replace('_', ' ')} {found['num_equal']:,}/{found['num']:,}"
        for part in ("hard_texts", "training_texts", "prompts")
        if (found := stated.get(part))
    ]
    if found := stated.get("replies"):
        counts.append(f"tokens {found['num_equal_tokens']}/{found['num_tokens']}")
    if found := stated.get("perplexity"):
        counts.append(f"perplexity {found['checkpoint']:.4f} {found['export']:.4f}")
    return ", ".join(counts)


def sizes(folder: Path) -> tuple[float, float]:
    """Return the megabytes of the weights, and of all files."""
    files = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    weights = sum(size for path, size in files.items() if path.suffix in WEIGHTS)
    return weights / 1e6, sum(files.values()) / 1e6


def exported(run: Path, keep: Path, name: str, dtype: str) -> Path | None:
    """Export the run unless that is done; None with a message if it is refused."""
    folder = keep / f"{run.name}-{name}-{dtype}"
    if not folder.exists():
        command = [sys.executable, "-m", "convo_cli", "export", run, folder, "--quiet"]
        command += ["--format", name, "--dtype", dtype]
        done = subprocess.run(command, cwd=work.ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{run.name}: no {name} {dtype}: {done.stderr.strip()}", file=sys.stderr)
            return None
    return folder


def vocabulary_size(run: Path) -> int:
    """Return the number of tokens of a run's tokenizer."""
    stated = json.loads((run / "tokenizer" / "tokenizer.json").read_bytes())
    return len(stated["model"]["vocab"])


@contextmanager
def opened(name: str, folder: Path) -> Iterator[Side]:
    """Yield a process that has opened an export, or a run by convo itself."""
    command = [sys.executable, __file__, "--serve", name, str(folder)]
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(work.ROOT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Side(name, process, None if name == CONVO else folder)
        process.kill()


def serve(name: str, folder: Path) -> None:
    """Answer prompts from stdin, each as a line of JSON, on one CPU."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # a library may print
    reply = convo_reply(folder) if name == CONVO else export_reply(name.split()[0], folder)
    for line in sys.stdin:
        ids, num_tokens = json.loads(line)
        started = time.process_time()
        said = list(reply(ids, num_tokens))
        print(json.dumps([said, time.process_time() - started]), file=answers, flush=True)


def export_reply(name: str, folder: Path) -> Reply:
    """Return the greedy replies of an export."""
    from convo_cli.export.formats import FORMATS

    return FORMATS[name].open_runtime(folder, None).greedy


def convo_reply(run: Path) -> Reply:
    """Return the greedy replies of convo's own generator."""
    import numpy as np
    import torch

    from convo_cli.config.schema import GenerationSettings
    from convo_cli.model.decoding.queries import Query
    from convo_cli.model.open import open_generator

    torch.set_num_threads(1)
    generator = open_generator(str(run), device="cpu", emit=lambda event: None)
    settings = GenerationSettings(temperature=0.0)

    def reply(ids: Sequence[int], num_tokens: int) -> Sequence[int]:
        (found,) = generator.answer([Query(np.array(ids), num_tokens, 0)], settings)
        return [int(token) for token in found.ids]

    return reply


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
