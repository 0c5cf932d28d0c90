"""Speed of `convo validate-data`, compared with readers that check less, on the same files.

    python benchmarks/bench_validate.py --megabytes 100 --rounds 5
    python benchmarks/bench_validate.py --file data.jsonl --datasets-python PYTHON

The readers alternate (A B C A B C …), each in a separate process, and the table shows the median,
smallest and largest of the rounds, because the machine may be busy. The CPU seconds of convo on all
cores include its workers. Start-up and imports are measured by running each reader without files,
and subtracted. Unless a file is given, the dialogues are random with a fixed seed: about 600 bytes
each, of English or Korean words.
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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

ROOT = Path(__file__).resolve().parent.parent
CONVO = "convo, one process"
CONVO_ALL = "convo, all cores"
PYDANTIC = "jsonlines + pydantic"
JSON = "json.loads"
DATASETS = "datasets.load_dataset"

Make = Callable[[list[str]], Any]


def main() -> None:
    """Measure and print a table for each file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--megabytes", type=int, default=100, help="size of each random file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--file", action="append", help="measure on this file instead; may be repeated"
    )
    parser.add_argument("--datasets-python", help="a Python that has `datasets` installed")
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        READERS[options.reader](options.paths)
        return
    with tempfile.TemporaryDirectory() as folder:
        files = options.file or list(made_up(Path(folder), options.megabytes * 10**6))
        for file in files:
            compare(file, options.rounds, options.datasets_python)


def made_up(folder: Path, num_bytes: int) -> Iterator[str]:
    """Write a file of each shape and yield its name."""
    shapes: dict[str, tuple[str, Make]] = {
        "texts": ("english", lambda texts: texts),
        "messages": (
            "english",
            lambda texts: {"messages": as_turns(texts, "role", "content", ("user", "assistant"))},
        ),
        "sharegpt": (
            "english",
            lambda texts: {
                "id": f"chat-{random.randrange(10**9)}",
                "conversations": as_turns(texts, "from", "value", ("human", "gpt")),
            },
        ),
        "texts-korean": ("korean", lambda texts: texts),
    }
    for name, (language, make) in shapes.items():
        random.seed(name)
        words = vocabulary(language)
        path = folder / f"{name}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            while file.tell() < num_bytes:
                for _ in range(1000):
                    texts = [sentence(words) for _ in range(random.choice((2, 4, 5, 6, 8, 10, 13)))]
                    file.write(json.dumps(make(texts), ensure_ascii=False) + "\n")
        yield str(path)


def vocabulary(language: str) -> list[str]:
    """Return made-up words as long as those of the language."""
    first, number, longest = ("a", 26, 9) if language == "english" else ("가", 11172, 4)
    return [
        "".join(
            chr(ord(first) + random.randrange(number)) for _ in range(random.randint(1, longest))
        )
        for _ in range(5000)
    ]


def sentence(words: list[str]) -> str:
    """Return a text with a comma, and sometimes an apostrophe or a quotation."""
    said = random.choices(words, k=random.randint(3, 24))
    if random.random() < 0.02:
        said[-1] = f'"{said[-1]}"'
    if random.random() < 0.02:
        said[0] += "’s"
    return f"{' '.join(said[:3]).capitalize()}, {' '.join(said[3:])}{random.choice('.?!')}"


def as_turns(
    texts: list[str], speaker: str, text: str, names: tuple[str, str]
) -> list[dict[str, str]]:
    return [{speaker: names[index % 2], text: said} for index, said in enumerate(texts)]


def compare(file: str, rounds: int, datasets_python: str | None) -> None:
    """Print the time that each reader needs for the file."""
    megabytes = Path(file).stat().st_size / 1e6
    pythons = dict.fromkeys(READERS, sys.executable)
    if datasets_python:
        pythons[DATASETS] = datasets_python
    names = [
        name
        for name in READERS
        if name != DATASETS or (datasets_python and is_read(datasets_python, file))
    ]
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    starts: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            starts[name].append(measure(pythons[name], name, []))
            seconds[name].append(measure(pythons[name], name, [file]))
    print(f"\n{Path(file).name}: {megabytes:.0f} MB, {rounds} rounds, seconds without start-up")
    print(
        f"{'':<24} {'CPU':>7} {'min':>7} {'max':>7} {'wall':>7} {'MB/CPU s':>9}  times {PYDANTIC}"
    )
    medians = {}
    for name in names:
        start = [statistics.median(column) for column in zip(*starts[name], strict=True)]
        cpu = [value - start[0] for value, _ in seconds[name]]
        wall = statistics.median(value for _, value in seconds[name]) - start[1]
        medians[name] = statistics.median(cpu)
        ratio = medians[PYDANTIC] / medians[name] if PYDANTIC in medians else 0.0
        print(
            f"{name:<24} {medians[name]:7.2f} {min(cpu):7.2f} {max(cpu):7.2f} {wall:7.2f} "
            f"{megabytes / medians[name]:9.1f}  {ratio:5.2f}"
        )
    if DATASETS not in names:
        reason = "it cannot read the file" if datasets_python else "no --datasets-python"
        print(f"{DATASETS:<24} skipped: {reason}")


def is_read(python: str, file: str) -> bool:
    """Return whether `datasets` can read the file; its JSON reader needs an object on each line."""
    command = [python, __file__, "--reader", DATASETS, file]
    return subprocess.run(command, check=False, capture_output=True, cwd=ROOT).returncode == 0


def measure(python: str, reader: str, paths: list[str]) -> tuple[float, float]:
    """Return the CPU and wall seconds of one process."""
    before, began = os.times(), time.perf_counter()
    subprocess.run(
        [python, __file__, "--reader", reader, *paths], check=True, capture_output=True, cwd=ROOT
    )
    after, ended = os.times(), time.perf_counter()
    cpu = (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
    return cpu, ended - began


def read_with_convo(paths: list[str], num_cpus: int | None = None) -> None:
    """Validate the files, by default on all CPUs."""
    sys.path.insert(0, str(ROOT))
    from convo_cli import cpus
    from convo_cli.config.schema import DataConfig
    from convo_cli.data.checks.validate import validate_files

    if num_cpus is not None:
        cpus.num_cpus = lambda: num_cpus
    report = validate_files(paths, DataConfig(train=tuple(paths or ["none"])))
    assert report.is_trainable, "the file is good"


def read_with_pydantic(paths: list[str]) -> None:
    """Read with a strict model for the shape of the file's first line; texts may not be empty."""
    import jsonlines
    from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

    text = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1)]

    class Message(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid")
        role: Literal["system", "user", "assistant"]
        content: text

    class Messages(BaseModel):
        model_config = ConfigDict(strict=True)
        messages: list[Message]

    class Said(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid")
        speaker: Literal["system", "human", "gpt"] = Field(alias="from")
        value: text

    class ShareGPT(BaseModel):
        model_config = ConfigDict(strict=True)
        id: str
        conversations: list[Said]

    for path in paths:
        with Path(path).open(encoding="utf-8") as file:
            first = json.loads(file.readline())
        shape: Any = list[text]
        if isinstance(first, dict):
            shape = Messages if "messages" in first else ShareGPT
        adapter = TypeAdapter(shape)
        with jsonlines.open(path) as lines:
            for value in lines:
                adapter.validate_python(value)


def read_with_json(paths: list[str]) -> None:
    for path in paths:
        with Path(path).open(encoding="utf-8") as file:
            for line in file:
                json.loads(line)


def read_with_datasets(paths: list[str]) -> None:
    import datasets  # type: ignore[import-not-found,unused-ignore]

    for path in paths:
        with tempfile.TemporaryDirectory() as cache:
            datasets.load_dataset("json", data_files=path, cache_dir=cache)


READERS: dict[str, Callable[[list[str]], None]] = {
    PYDANTIC: read_with_pydantic,
    CONVO: partial(read_with_convo, num_cpus=1),
    CONVO_ALL: read_with_convo,
    JSON: read_with_json,
    DATASETS: read_with_datasets,
}

if __name__ == "__main__":
    main()
