"""Speed of convo's training loop and other trainers with equal model, data, dropout and seed.

    python benchmarks/bench_train.py --rounds 5
    python benchmarks/bench_train.py --ladder           # without each technique of convo in turn
    python benchmarks/bench_train.py --drivers FOLDER --peers-python /path/to/venv/bin/python

Every row is a separate process, and rows alternate (A B C A B C …). The table has the median over
the rounds of tokens per two CPU seconds (reliable on a busy machine), its range, the ratio of convo
to it in the same round, its share of the speed of the matrix products alone, tokens a second of
wall time, fill (tokens / slots of the forward passes) and peak memory. On a GPU, the rows of convo
have the share of the chip's dense peak instead. The peers need `pip install torch transformers
accelerate datasets trl lightning` in the environment of `--peers-python`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import work

CONVO = work.ROOT / "benchmarks" / "train_convo.py"
PEERS: dict[str, tuple[str, ...]] = {
    "HF Trainer": ("hf_trainer.py",),
    "HF Trainer, length-grouped": ("hf_trainer.py", "--mode", "grouped"),
    "TRL SFT, packing": ("trl_sft.py", "--mode", "packing"),
    "TRL SFT, packing, no checkpointing": ("trl_sft.py", "--mode", "packing", "--nogc"),
    "Lightning + HF model": ("lightning_hf.py",),
    "plain loop, padded": ("bare_loop.py",),
    "plain loop, length buckets": ("bare_loop.py", "--mode", "bucketed"),
    "plain loop, packed with a mask": ("bare_loop.py", "--mode", "packed_hf"),
}
LADDER = ("packing", "target-loss", "fused-adamw", "fast-gelu")


def main() -> None:
    """Run all rows in every round and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=work.FOLDER / "train.jsonl")
    parser.add_argument("--tokenizer", type=Path, help="default: one is trained")
    parser.add_argument(
        "--drivers", type=Path, help="folder of the peers' drivers; default: only convo"
    )
    parser.add_argument("--peers-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS, metavar="NAME")
    parser.add_argument("--model", default="mini", choices=work.SIZES)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--labels", default="all", choices=["all", "assistant"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--device", default="cpu", help="of convo; the peers' drivers run only on the CPU"
    )
    parser.add_argument("--threads", type=int, default=2, help="of convo and of the products")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--ladder", action="store_true")
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {}
    with TemporaryDirectory() as folder:
        arguments.tokenizer = arguments.tokenizer or work.make_tokenizer(
            arguments.data, Path(folder, "bpe.json")
        )
        for number in range(arguments.rounds):
            for name, command in lines(arguments).items():
                result = run([*command, "--seed", str(number)])
                if result is not None:
                    results.setdefault(name, []).append(result)
    show(results, arguments)


def lines(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each row by its name."""
    shared: list[object] = [
        "--data", arguments.data, "--tokenizer", arguments.tokenizer, "--model", arguments.model,
        "--steps", arguments.steps, "--warmup", 2, "--batch", arguments.batch,
        "--dropout", arguments.dropout, "--labels", arguments.labels,
    ]  # fmt: skip
    convo = [sys.executable, CONVO, *shared]
    convo += ["--device", arguments.device, "--precision", arguments.precision]
    convo += ["--threads", arguments.threads]
    convo += ["--compile"] * arguments.compile
    commands: dict[str, Sequence[object]] = {"convo": convo}
    if arguments.device == "cpu":
        commands["matrix products alone"] = [*convo, "--gemm"]
    if arguments.ladder:
        commands |= {
            f"convo without {technique}": [*convo, "--without", technique] for technique in LADDER
        }
    if arguments.drivers:
        for name in arguments.peers:
            driver, *mode = PEERS[name]
            commands[name] = [arguments.peers_python, arguments.drivers / driver, *shared, *mode]
    return {name: [str(word) for word in command] for name, command in commands.items()}


def run(command: Sequence[str]) -> dict[str, float] | None:
    """Return the JSON line that a process prints; None, and a line on stderr, if it fails."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_WAIT_POLICY": "passive"},
        check=False,
    )
    printed = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not printed:
        print(f"failed: {' '.join(command)}\n{done.stderr[-500:]}", file=sys.stderr)
        return None
    result: dict[str, float] = json.loads(printed[-1])
    return result


def show(results: dict[str, list[dict[str, float]]], arguments: argparse.Namespace) -> None:
    """Print medians and ratios."""
    print(
        f"{arguments.model}, {arguments.batch} dialogues a step, dropout {arguments.dropout}, "
        f"{arguments.labels}"
    )
    print(
        f"{'':36}{'tokens / 2 CPU s':>24}{'convo is':>9}{'of GEMM':>9}{'tokens/s':>10}{'fill':>6}"
        f"{'GB':>6}{'loss':>8}"
    )
    limit = medians(results.get("matrix products alone", []), "real_tokens_per_cpu2_s")
    for name, rounds in results.items():
        speeds = [one["real_tokens_per_cpu2_s"] for one in rounds]
        spread = f"{statistics.median(speeds):,.0f} ({min(speeds):,.0f}-{max(speeds):,.0f})"
        ratios = [
            ours["real_tokens_per_cpu2_s"] / theirs["real_tokens_per_cpu2_s"]
            for ours, theirs in zip(results["convo"], rounds, strict=False)
        ]
        share = statistics.median(speeds) / limit if limit else 0.0
        cells = f"{name:36}{spread:>24}{statistics.median(ratios):>8.2f}x{share:>9.0%}"
        cells += f"{medians(rounds, 'real_tokens_per_s'):>10,.0f}"
        if "fill" in rounds[0]:
            losses = [one["loss"] for one in rounds if one["loss"] is not None]
            cells += f"{medians(rounds, 'fill'):>6.2f}{medians(rounds, 'peak_rss_mb') / 1024:>6.1f}"
            cells += f"{statistics.median(losses):>8.3f}" if losses else ""
        if rounds[0].get("model_flops_utilisation"):
            cells += f"  {medians(rounds, 'model_flops_utilisation'):.0%} of peak"
            cells += f", {medians(rounds, 'peak_device_mb') / 1024:.1f} GB on the device"
        print(cells)


def medians(rounds: Sequence[dict[str, float]], key: str) -> float:
    """Return the median of one number over the rounds; 0 if there are none."""
    return statistics.median([one[key] for one in rounds]) if rounds else 0.0


if __name__ == "__main__":
    main()
