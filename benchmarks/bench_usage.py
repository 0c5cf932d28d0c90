"""Cost of the device statistics: CPU time of one measurement, and of a run with and without them.

    python benchmarks/bench_usage.py
    python benchmarks/bench_usage.py --steps 500 --rounds 5 --device cuda

`one measurement` includes its line in metrics.jsonl and its TensorBoard events. The runs train on
the sample dialogues in turns, A B A B: without measurements, with those of every run (after the
first step, every 10 seconds, after the last step), and with one after each step. The table has the
median, smallest and largest CPU time of the training loop, and the median of the ratios of a round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"

import torch

from convo_cli.config.schema import RunConfig
from convo_cli.events import Event, RunFinished, RunStarted
from convo_cli.model import usage
from convo_cli.runs.logs.event_log import MetricsLog
from convo_cli.runs.logs.tensorboard import TensorBoardLog
from convo_cli.training.run import start_run

SAMPLES = Path(__file__).resolve().parent.parent / "sample_data"
PAUSES = {"without": None, "as in every run": 10.0, "every step": 0.0}
"""Seconds between two measurements."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="steps of a run")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--measurements", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one = seconds_of_one(Path(folder), arguments)
        print(f"one measurement  {1e6 * one:,.0f} µs of CPU time")
        seconds: dict[str, list[float]] = {name: [] for name in PAUSES}
        for number in range(arguments.rounds):
            for name, pause in PAUSES.items():
                config = make_config(Path(folder), f"{name}-{number}", arguments)
                seconds[name].append(seconds_of_run(config, pause))
    for name, times in seconds.items():
        ratios = [time / other for time, other in zip(times, seconds["without"], strict=True)]
        spread = f"{statistics.median(times):.2f} ({min(times):.2f}-{max(times):.2f})"
        print(f"{name:<17}{spread} s  {statistics.median(ratios):.3f}x")


def seconds_of_one(folder: Path, arguments: argparse.Namespace) -> float:
    """Return the mean CPU time of a measurement that is logged."""
    meter = usage.UsageMeter(torch.device(arguments.device))
    reporters = (
        MetricsLog(folder / "metrics.jsonl", folder / "samples.jsonl"),
        TensorBoardLog(folder / "tensorboard"),
    )
    meter.measure(0)
    began = time.process_time()
    for step in range(1, arguments.measurements + 1):
        event = meter.measure(step)
        for report in reporters:
            report(event)
    return (time.process_time() - began) / arguments.measurements


def seconds_of_run(config: RunConfig, pause: float | None) -> float:
    """Return the CPU time from the first step to the last."""
    times: list[float] = []

    def emit(event: Event) -> None:
        if isinstance(event, (RunStarted, RunFinished)):
            times.append(time.process_time())

    with ExitStack() as stack:
        if pause is None:
            stack.enter_context(mock.patch.object(usage.UsageMeter, "is_due", return_value=False))
        if pause == 0:
            stack.enter_context(mock.patch.object(usage, "_SECONDS", 0.0))
            stack.enter_context(mock.patch.object(usage, "_PAUSE", 0.0))
        start_run(config, emit)
    return times[1] - times[0]


def make_config(folder: Path, name: str, arguments: argparse.Namespace) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": name.replace(" ", "-"),
            "output_dir": str(folder / "runs"),
            "data": {"train": [str(SAMPLES / "train.jsonl")]},
            "tokenizer": {"vocab_size": 800},
            "model": {"scratch": {"layers": 2, "width": 64, "heads": 2, "context": 512}},
            "training": {"max_steps": arguments.steps, "device": arguments.device},
            "checkpoints": {"every_steps": arguments.steps},
            "logging": {"plots": False},
        }
    )


if __name__ == "__main__":
    main()
