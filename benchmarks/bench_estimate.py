"""Estimates of `convo train --dry-run` compared with real runs: peak of memory, time of a step.

    python benchmarks/bench_estimate.py --pretrained models/smollm2

Each case is planned by `--dry-run` and then run in a process of its own, on the sample dialogues.
The measured peak is that of the process on a CPU (its peak resident memory, as the system reports
it at its end) and that of torch's allocator on CUDA (`--device cuda`). The measured time of a step
is the median. `convert_smollm2.py` makes the pretrained model; without `--pretrained`, only models
with random weights are run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).resolve().parent.parent / "sample_data"
COMMON = [
    f"data.train=[{SAMPLES / 'train.jsonl'}]",
    f"data.validation=[{SAMPLES / 'valid.jsonl'}]",
    "evaluation.reply_dialogues=4",
    "generation.max_new_tokens=16",
    "training.warmup_steps=1",
    "logging.tensorboard=false",
]
SCRATCH = ["training.batch_size=64", "training.max_steps=6", "evaluation.every_steps=3"]
PRETRAINED = [
    "model.scratch=null",
    "training.batch_size=16",
    "training.micro_batch_size=8",
    "training.max_steps=3",
    "evaluation.every_steps=3",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pretrained", type=Path, help="folder of a pretrained model")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    cases = {
        "2x128": [*SCRATCH, *scratch(2, 128, 2)],
        "6x384": [*SCRATCH, *scratch(6, 384, 6)],
    }
    few = ["training.max_steps=4", "evaluation.every_steps=4"]
    small = [*few, "training.batch_size=32"]
    cases |= {  # the factors of the estimate were not fitted to these
        "4x256": [*small, *scratch(4, 256, 4)],
        "4x256, padded": [*small, *scratch(4, 256, 4), "training.packing=off"],
        "8x512, 4 examples": [*few, *scratch(8, 512, 8), "training.batch_size=4"],
    }
    if arguments.pretrained:
        model = [*PRETRAINED, f"model.pretrained={arguments.pretrained.resolve()}"]
        name = arguments.pretrained.name
        cases |= {name: model, f"{name}, LoRA": [*model, "model.lora.rank=8"]}
    columns = ("", "recomputed", "estimate, MiB", "measured, MiB", "ratio", "basis", "step, s", "")
    print("{:18}{:>11}{:>15}{:>15}{:>7}{:>10}{:>9}{:>9}".format(*columns))
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, settings) in enumerate(cases.items()):
            for saves_memory in ("false", "true"):
                options = [
                    *COMMON, *settings, f"training.device={arguments.device}",
                    f"training.gradient_checkpointing={saves_memory}",
                    f"output_dir={folder}/runs", f"name=case-{number}-{saves_memory}",
                ]  # fmt: skip
                print(line(name, saves_memory, Path(folder), options), flush=True)


def scratch(layers: int, width: int, heads: int) -> list[str]:
    sizes = {"layers": layers, "width": width, "heads": heads}
    return [f"model.scratch.{key}={value}" for key, value in sizes.items()]


def line(name: str, saves_memory: str, folder: Path, options: list[str]) -> str:
    """Plan and run one case; return its line of the table."""
    plan, _ = convo(folder, "--dry-run", *options)
    result, peak = convo(folder, *options)
    steps = logged(Path(result["run_dir"]))
    if plan["device"] != "cpu":
        usage = [one["gpu"]["peak_process_bytes"] for one in steps if one["event"] == "device"]
        peak = max(usage)
    measured = statistics.median(one["seconds"] for one in steps if one["event"] == "step")
    memory, seconds = plan["memory"], plan["seconds_per_step"]
    ratio = memory["peak_bytes"] / peak
    estimated = memory["peak_bytes"] / 2**20
    return (
        f"{name:18}{saves_memory:>11}{estimated:15,.0f}{peak / 2**20:15,.0f}{ratio:7.2f}"
        f"{memory['basis']:>10}{seconds:9.2f}{measured:9.2f}"
    )


def convo(folder: Path, *options: str) -> tuple[dict[str, Any], int]:
    """Run `convo train`; return its object and the peak of its resident memory in bytes."""
    config = folder / "config.yaml"
    if not config.exists():
        subprocess.run([sys.executable, "-m", "convo_cli", "init-config", "-o", config], check=True)
    words = [word for option in options if "=" in option for word in ("--set", option)]
    flags = [option for option in options if "=" not in option]
    command = [sys.executable, "-m", "convo_cli", "train", str(config), "--json", "-q"]
    process = subprocess.Popen([*command, *flags, *words], stdout=subprocess.PIPE)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(process.returncode)
    return json.loads(text), usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def logged(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
