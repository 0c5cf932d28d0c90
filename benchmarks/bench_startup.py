"""CPU seconds that a start of convo costs, compared with bare Python and imports.

    python3 bootstrap.py bench

The commands alternate (A B C A B C …), and the table shows the median, smallest and largest of the
rounds, because the machine may be busy. The column `torch` tells whether a command imported it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 9
ROOT = Path(__file__).resolve().parent.parent
MAIN = "from convo_cli.__main__ import main; main()"
DATA = str(ROOT / "sample_data" / "train.jsonl")


def main() -> None:
    """Measure and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder, "broken.yaml")
        broken.write_text("training:\n  lerning_rate: 1e-3\n")
        commands = {
            "python -c pass": ["-c", "pass"],
            "import typer, rich.console": ["-c", "import typer, rich.console"],
            "convo --version": ["-c", MAIN, "--version"],
            "convo --help": ["-c", MAIN, "--help"],
            "convo train --help": ["-c", MAIN, "train", "--help"],
            "convo init-config": ["-c", MAIN, "init-config"],
            "convo train broken.yaml": ["-c", MAIN, "train", str(broken)],
            "convo validate-data (188 dialogues)": ["-c", MAIN, "validate-data", DATA],
            "import torch": ["-c", "import torch"],
            "from transformers import AutoTokenizer": [
                "-c",
                "from transformers import AutoTokenizer",
            ],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, arguments in commands.items():
                seconds[name].append(cpu_seconds(arguments))
        print(
            f"{'CPU seconds, median of ' + str(ROUNDS):<42} {'median':>7} {'min':>6} {'max':>6}  "
            "torch"
        )
        for name, values in seconds.items():
            torch = "yes" if imports_torch(commands[name]) else "no"
            print(
                f"{name:<42} {statistics.median(values):7.3f} {min(values):6.3f} "
                f"{max(values):6.3f}  {torch}"
            )


def cpu_seconds(arguments: list[str]) -> float:
    """Return user plus system time of one process."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


def imports_torch(arguments: list[str]) -> bool:
    """Return whether the command imports torch."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, check=False
    )
    return any(line.endswith(b"| torch") for line in done.stderr.splitlines())


if __name__ == "__main__":
    main()
