"""Peak memory of a whole command by the number of dialogues: `train` up to step 1, and others.

    python benchmarks/bench_memory.py
    python benchmarks/bench_memory.py --dialogues 10000 100000 1000000 --case train evaluated

Each row is a real command on generated dialogues, and its peak memory is the most that the process
held at once (resident; VmHWM of Linux), in each stage that it names. `helpers` is the peak of its
child processes, such as the one that trains the tokenizer. The last line of a case is the growth
in bytes a dialogue between the numbers of dialogues. With ``--curve``, each stage is a row.

The generator writes short dialogues of 2 to 6 turns, all different, from a vocabulary whose words
are as frequent as in a language.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

CASES = {
    "train": {},
    "evaluated": {
        "validation": ["held-out.jsonl"], "test": ["test.jsonl"],
    },
    "split": {"validation_split": 0.1},
    "weights": {
        "train": [{"path": "a.jsonl", "weight": 2}, {"path": "b.jsonl", "weight": 0.5}],
    },
}  # fmt: skip
"""The keys of ``data`` of each case."""
BASE = {
    "model": {"scratch": {"layers": 1, "width": 32, "heads": 1, "context": 256}},
    "dialogue": {"max_length": 256},
    "tokenizer": {"vocab_size": 1000},
    "training": {"max_steps": 1, "batch_size": 8, "device": "cpu"},
    "evaluation": {"reply_dialogues": 2},
    "generation": {"max_new_tokens": 4},
}
FILES = {
    "train.jsonl": 1,
    "a.jsonl": 0.5,
    "b.jsonl": 0.5,
    "held-out.jsonl": 0.1,
    "test.jsonl": 0.01,
}
"""The data files, and their part of the number of dialogues."""
MIB = 2**20
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "400"}


def main() -> None:
    """Parse the command line, measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dialogues", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--case", choices=CASES, nargs="+", default=["train"])
    parser.add_argument("--folder", type=Path, help="keep data and runs here")
    parser.add_argument("--curve", action="store_true", help="print a row for each stage")
    parser.add_argument("--all-commands", action="store_true", help="measure resume and others too")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        for case in arguments.case:
            measure_case(case, folder, arguments)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)


def measure_case(case: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Run the commands of a case for each number of dialogues, and print their peaks."""
    before: dict[str, tuple[int, int]] = {}
    for number in arguments.dialogues:
        keys = json.dumps({"train": ["train.jsonl"]} | CASES[case])
        names = [name for name in FILES if name in keys]
        data = make_data(folder / f"data-{number}", number, names)
        home, config = data / "runs", data / f"{case}.yaml"
        shutil.rmtree(home, ignore_errors=True)
        content = BASE | {"data": {"train": ["train.jsonl"]} | CASES[case], "output_dir": str(home)}
        config.write_text(json.dumps(content))  # JSON is YAML
        train = ["train", str(config), "--set"]
        commands = {"train": [*train, f"name={case}"]}
        if arguments.all_commands:
            commands["dry run"] = [*train, "name=other", "--dry-run"]
            commands["resume"] = ["resume", str(home / case), "--set", "training.max_steps=2"]
            commands["config"] = ["validate-data", "--config", str(config)]
            commands["validate"] = ["validate-data", *names]
        for name, words in commands.items():
            found = watch([sys.executable, "-m", "convo_cli", *words], data)
            line = f"{case:10}{name:10}{number:>10,} dialogues  {found.peak / MIB:8.1f} MiB"
            line += f"  helpers {found.helpers / MIB:7.1f} MiB  {found.seconds:6.1f} s"
            if name in before:
                less, peak = before[name]
                line += f"  {(found.peak - peak) / (number - less):+8.1f} bytes a dialogue"
            print(line, flush=True)
            before[name] = number, found.peak
            for stage in found.stages if arguments.curve else ():
                print(
                    f"    {stage.start:7.1f} s  {stage.peak / MIB:8.1f} MiB, at its end "
                    f"{stage.last / MIB:8.1f}  {stage.name}"
                )


@dataclass
class Stage:
    """A stage of a command: the bytes that it held at most, and at its end."""

    name: str
    start: float
    peak: int = 0
    last: int = 0


@dataclass
class Watched:
    """Memory of a command in bytes, and its stages."""

    stages: list[Stage] = field(default_factory=lambda: [Stage("start", 0.0)])
    helpers: int = 0
    seconds: float = 0.0

    @property
    def peak(self) -> int:
        return max(stage.peak for stage in self.stages)


def watch(command: Sequence[str], folder: Path, interval: float = 0.01) -> Watched:
    """Run a command in a folder and read its memory; show its messages if it fails."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        cwd=folder, env=os.environ | _ENVIRONMENT,
    )  # fmt: skip
    found, lines = Watched(), list[str]()

    def read_stages() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            name = re.sub(r"[\d,.]+", "#", line.strip())[:50]
            if name != found.stages[-1].name:
                _end_stage(process.pid, found.stages[-1])
                found.stages.append(Stage(name, time.monotonic() - began))

    reader = threading.Thread(target=read_stages)
    reader.start()
    while process.poll() is None:
        status = _status(process.pid)
        stage = found.stages[-1]
        stage.peak = max(stage.peak, status.get("VmHWM", 0))
        stage.last = status.get("VmRSS", 0) or stage.last
        found.helpers = max(
            [found.helpers, *(_status(child).get("VmHWM", 0) for child in _children(process.pid))]
        )
        time.sleep(interval)
    reader.join()
    found.seconds = time.monotonic() - began
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{''.join(lines)}")
    return found


def _end_stage(process: int, stage: Stage) -> None:
    """Read the peak of a stage and let the next one begin with a peak of its own."""
    status = _status(process)
    stage.peak, stage.last = max(stage.peak, status.get("VmHWM", 0)), status.get("VmRSS", 0)
    try:
        Path(f"/proc/{process}/clear_refs").write_text("5")
    except OSError:  # it has ended
        return


def _status(process: int) -> dict[str, int]:
    """Return the memory values of a process in bytes; none if it has ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return {}
    return {name: int(value) * 1024 for name, value in re.findall(r"(\w+):\s+(\d+) kB", text)}


def _children(process: int) -> list[int]:
    """Return the child processes of all threads of a process."""
    found = list[int]()
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except OSError:
            continue
    return found


def make_data(folder: Path, number: int, names: Iterable[str] = FILES) -> Path:
    """Write the data files for ``number`` training dialogues that do not exist yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, share) in enumerate(FILES.items()):
        if name in names and not (folder / name).is_file():
            write_dialogues(folder / "aside", int(number * share), seed)
            (folder / "aside").rename(folder / name)
    return folder


def write_dialogues(path: Path, number: int, seed: int) -> None:
    """Write dialogues of 2 to 6 turns with 4 to 12 words each, all different."""
    random = np.random.default_rng(seed)
    words = np.array(["".join(random.choice([*"aeiou"], 2)) + _stem(random) for _ in range(20_000)])
    shares = 1 / np.arange(1, len(words) + 1)  # Zipf's law
    ends = np.cumsum(shares / shares.sum())
    with path.open("w", encoding="utf-8") as file:
        for first in range(0, number, 1000):
            texts = _texts(random, words, ends)
            for dialogue in range(first, min(number, first + 1000)):
                turns = [next(texts) for _ in range(2 * random.integers(1, 4))]
                turns[0] += f" {dialogue}"
                file.write('["' + '", "'.join(turns) + '"]\n')


def _stem(random: np.random.Generator) -> str:
    return "".join(random.choice([*"bcdfghklmnprstvwz"], random.integers(1, 6)))


def _texts(random: np.random.Generator, words: np.ndarray, ends: np.ndarray) -> Iterator[str]:
    """Yield texts of random words without end; words are drawn many at a time."""
    while True:
        drawn = words[np.searchsorted(ends, random.random(64_000))]
        sizes = random.integers(4, 13, 4000)
        places = np.cumsum(sizes)
        for begin, end in zip(places - sizes, places, strict=True):
            yield " ".join(drawn[begin:end])


if __name__ == "__main__":
    main()
