"""Speed and memory by length of dialogues, size of the model and size of its vocabulary.

    python benchmarks/bench_scaling.py
    python benchmarks/bench_scaling.py --axis vocabulary --steps 5

Every row is a separate process: random tokens, a GPT-2 of the given shape, packing, every token a
target, AdamW, fp32. The defaults are 6 layers, width 384, vocabulary 8,000, dialogues of 128 tokens
and 2,048 tokens a step.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from contextlib import nullcontext

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

BASE = {"layers": 6, "width": 384, "vocabulary": 8000, "length": 128, "tokens": 2048}
AXES: dict[str, list[dict[str, int]]] = {
    "length": [{"length": length} for length in (32, 64, 128, 256, 512, 1024)],
    "model": [
        {"layers": layers, "width": width, "tokens": 1024}
        for layers, width in ((2, 128), (6, 384), (12, 768), (24, 1024))
    ],
    "vocabulary": [{"vocabulary": size} for size in (8_000, 32_000, 50_000, 150_000)],
}


def main() -> None:
    """Run each row and print the tables; with ``--row``, measure one row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--axis", choices=AXES, nargs="*", default=list(AXES))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(json.loads(arguments.row), arguments.steps, arguments.threads)))
        return
    for axis in arguments.axis:
        names = f"{'parameters':>12}{'tokens/s':>10}{'tokens/2 CPU s':>16}{'GFLOP/2 CPU s':>15}"
        print(f"\n{axis:>12}{names}{'GB':>6}")
        for row in AXES[axis]:
            command = [sys.executable, __file__, "--row", json.dumps(BASE | row)]
            command += ["--steps", str(arguments.steps), "--threads", str(arguments.threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            result = json.loads(done.stdout)
            label = f"{row['layers']}x{row['width']}" if axis == "model" else f"{row[axis]:,}"
            print(
                f"{label:>12}{result['parameters'] / 1e6:>11.1f}M{result['tokens_per_s']:>10,.0f}"
                f"{result['tokens_per_cpu2_s']:>16,.0f}{result['gflop_per_cpu2_s']:>15,.0f}"
                f"{result['gigabytes']:>6.1f}",
                flush=True,
            )


def measure(shape: dict[str, int], steps: int, threads: int) -> dict[str, float]:
    """Train for some steps after a first one that is not counted, and measure."""
    import numpy as np
    import torch
    import work
    from steps import Steps

    from convo_cli.config.schema import TrainingConfig
    from convo_cli.model.batches.batching import choose_batching
    from convo_cli.model.create import use_fast_activations
    from convo_cli.tokens.store import ASSISTANT_TARGET, Example
    from convo_cli.training.loop import train_step
    from convo_cli.training.optim import make_optimizer
    from convo_cli.training.state import TrainState

    torch.set_num_threads(threads)
    model = work.make_model(
        (shape["vocabulary"], 1024, shape["layers"], shape["width"], shape["width"] // 64)
    )
    use_fast_activations(model)
    rng = np.random.default_rng(0)
    targets = np.full(shape["length"], ASSISTANT_TARGET, np.uint8)
    examples = [
        Example(rng.integers(0, shape["vocabulary"], shape["length"]).astype(np.int32), targets)
        for _ in range(max(2, shape["tokens"] // shape["length"]))
    ]
    batching = choose_batching(
        model, examples[:2], {ASSISTANT_TARGET}, pad_id=0, packing="on", autocast=nullcontext,
        emit=lambda event: None,
    )  # fmt: skip
    batch = batching.batch(examples, {ASSISTANT_TARGET})
    job = Steps(model, batching, lambda step: [batch], lambda step: 5e-4)
    state = TrainState(
        model,
        make_optimizer(model, TrainingConfig(max_steps=1)),
        torch.amp.GradScaler("cpu", enabled=False),
    )
    train_step(state, job)
    wall, cpu, job.flops = time.perf_counter(), time.process_time(), 0.0
    for _ in range(steps):
        train_step(state, job)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tokens = steps * batch.num_tokens
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens_per_s": tokens / wall,
        "tokens_per_cpu2_s": 2 * tokens / cpu,
        "gflop_per_cpu2_s": 2 * job.flops / cpu / 1e9,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


if __name__ == "__main__":
    main()
