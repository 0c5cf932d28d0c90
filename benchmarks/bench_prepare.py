"""Time to prepare data before step 1, compared with a plain loop over `apply_chat_template`.

    python benchmarks/bench_prepare.py
    python benchmarks/bench_prepare.py --file data/dailydialog/train.jsonl --dialogues 100000

`first` hashes, reads, checks, encodes and writes the data, and trains a SentencePiece tokenizer.
`encode` is the same when that tokenizer already exists; `again` is what a second run on the same
data does. `loop` is json.loads and `tokenizer.apply_chat_template` for one line after another: only
ids, kept in a list. `map` and `map batched` are `datasets.map` with the same tokenizer
(`map_datasets.py`); they need a --datasets-python that has the library. Every round runs all of
them; the table has the median, smallest and largest of the rounds. `--alone` runs only convo, to
measure growth with the number of dialogues. Peak memory is that of the process.

The file is repeated until there are enough dialogues, with a number in each first turn, so that all
differ.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

os.environ["HF_HUB_OFFLINE"] = "1"

from convo_cli.config.load import build_config
from convo_cli.config.schema import DataConfig, RunConfig
from convo_cli.data.dialogue import as_messages
from convo_cli.data.reader import read_dialogues
from convo_cli.prepare.cache import Cache
from convo_cli.prepare.inputs import Inputs
from convo_cli.prepare.prepare import prepare_data
from convo_cli.prepare.prepared_text import build_encoder
from convo_cli.runs.provenance.data_files import read_data_files
from convo_cli.text.encoder import DialogueEncoder

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Parse the command line, measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", type=Path, default=ROOT / "sample_data" / "train.jsonl")
    parser.add_argument("--dialogues", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--datasets-python", type=Path)
    parser.add_argument("--alone", action="store_true")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        data = make_data(arguments.file, arguments.dialogues, folder / "train.jsonl")
        compare(data, folder, arguments)
    finally:
        shutil.rmtree(folder)


def make_data(source: Path, count: int, path: Path) -> Path:
    """Write ``count`` different dialogues as messages."""
    dialogues = list(read_dialogues([str(source)], DataConfig(train=(str(source),))))
    with path.open("w", encoding="utf-8") as file:
        for number, dialogue in enumerate(islice(cycle(dialogues), count)):
            messages = as_messages(dialogue.turns)
            messages[0]["content"] += f" {number}"
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return path


def compare(path: Path, folder: Path, arguments: argparse.Namespace) -> None:
    """Time all of them in every round and print the results."""
    values = {
        "data": {"train": [str(path)]},
        "model": {"scratch": {"context": 4096}},
        "dialogue": {"max_length": 4096, "train_on": "all"},
        "training": {"max_steps": 1},
    }
    config = build_config(values, "the benchmark's config")
    home = folder / "runs"
    seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    num_tokens = 0
    for _ in range(arguments.rounds):
        shutil.rmtree(home, ignore_errors=True)
        _, took = timed(lambda: prepare(config, home))
        seconds["first"].append(took)
        for tokens in (home / ".convo-cache").glob("tokens-*"):
            if tokens.is_dir():
                shutil.rmtree(tokens)
        (encoder, num_tokens), took = timed(lambda: prepare(config, home))
        seconds["encode"].append(took)
        _, took = timed(lambda: prepare(config, home))
        seconds["again"].append(took)
        if arguments.alone:
            continue
        looped, took = timed(lambda: loop(path, encoder))  # noqa: B023  # called at once
        seconds["loop"].append(took)
        assert looped == num_tokens, f"the loop made {looped} tokens, convo {num_tokens}"
        if arguments.datasets_python:
            encoder.tokenizer.save_pretrained(folder / "tokenizer")
            for name, mode in (("map", []), ("map batched", ["--batched"])):
                words = [folder / "tokenizer", path, *mode]
                mapped, took = map_datasets(arguments.datasets_python, words)
                seconds[name].append(took)
                assert mapped == num_tokens, f"map made {mapped} tokens, convo {num_tokens}"
    megabytes = path.stat().st_size / 1e6
    print(
        f"{arguments.dialogues:,} dialogues of {arguments.file}: {megabytes:.0f} MB, "
        f"{num_tokens:,} tokens"
    )
    print(f"{'':12}{'wall s':>24}{'CPU s':>24}{'dialogues/s':>14}{'tokens/s':>12}")
    for name, pairs in seconds.items():
        wall, cpu = ([pair[index] for pair in pairs] for index in range(2))
        median = statistics.median(wall)
        print(
            f"{name:12}{spread(wall):>24}{spread(cpu):>24}{arguments.dialogues / median:>14,.0f}"
            f"{num_tokens / median:>12,.0f}"
        )
    ratio = statistics.median(
        again[0] / first[0] for again, first in zip(seconds["again"], seconds["first"], strict=True)
    )
    print(f"again / first: {ratio:.3f} (wall)")
    for name in ("loop", "map", "map batched"):
        both = list(zip(seconds[name], seconds["encode"], strict=False))
        if both:
            in_wall, in_cpu = [
                statistics.median(theirs[k] / ours[k] for theirs, ours in both) for k in range(2)
            ]
            print(f"{name} / encode: {in_wall:.2f} (wall), {in_cpu:.2f} (CPU)")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def map_datasets(python: Path, words: Sequence[object]) -> tuple[int, tuple[float, float]]:
    """Return the number of tokens from `datasets.map` in a separate process, and its seconds."""
    command = [str(python), str(ROOT / "benchmarks" / "map_datasets.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return result["num_tokens"], (result["wall"], result["cpu"])


def prepare(config: RunConfig, home: Path) -> tuple[DialogueEncoder, int]:
    """Prepare the data as `train` does before it builds a model."""
    files = read_data_files(config.data)
    inputs = Inputs(config, files, Cache(home, lambda event: None), lambda event: None)
    encoder = build_encoder(inputs).encoder
    return encoder, prepare_data(inputs, encoder).train.num_tokens


def loop(path: Path, encoder: DialogueEncoder) -> int:
    """Render every line with transformers alone and count the tokens."""
    tokenizer, rendered = encoder.tokenizer, []
    tokenizer.chat_template = encoder.template.chat_template
    with path.open(encoding="utf-8") as file:
        for line in file:
            rendered.append(
                tokenizer.apply_chat_template(
                    json.loads(line)["messages"], tokenize=True, return_dict=False
                )
            )
    return sum(map(len, rendered))


def timed(work: Callable[[], T]) -> tuple[T, tuple[float, float]]:
    """Return the result of the work, and its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, (time.perf_counter() - wall, time.process_time() - cpu)


def spread(values: list[float]) -> str:
    """Format the median with the smallest and largest value."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    main()
