"""Table of the differences between one process and 2 or 4 of them, over 8 steps in fp32.

    python benchmarks/law_table.py
    python benchmarks/law_table.py --cases packed curriculum --sizes 2

For each case, number of processes and sharding: the largest relative difference of a loss and of a
gradient norm, and the largest difference of a weight tensor after 8 steps, relative to its norm.
More processes than CPUs take longer, but give the same numbers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from convo_cli.config.schema import RunConfig
from tests.conftest import tiny_run
from tests.laws.test_world import CASES, SIZE
from tests.worlds import train_alone, train_in_world, weights

SHARDINGS = {"none": "DDP", "full": "FSDP2"}


def main() -> None:
    """Train every case in every world and print a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", choices=CASES, nargs="*", default=list(CASES))
    parser.add_argument("--sizes", type=int, nargs="*", default=[2, 4])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        alone = {case: train_alone(config(folder / "1", case)) for case in options.cases}
        print("| case | processes | sharding | loss | gradient norm | weights |")
        print("|---|---|---|---|---|---|")
        for size in options.sizes:
            runs = {
                f"{case} {sharding}": config(folder / str(size), case, sharding)
                for case in options.cases
                for sharding in SHARDINGS
            }
            seen = train_in_world(size, runs, folder / f"task-{size}", seconds=3600)
            for name, record in seen.items():
                case, _, sharding = name.rpartition(" ")
                one = folder / "1" / "runs" / alone_name(case)
                other = folder / str(size) / "runs" / runs[name].name
                far = [
                    *steps_apart(alone[case]["steps"], record["steps"]),
                    weights_apart(weights(one), weights(other)),
                ]
                numbers = " | ".join(f"{number:.1e}" for number in far)
                print(f"| {case} | {size} | {SHARDINGS[sharding]} | {numbers} |", flush=True)


def alone_name(case: str) -> str:
    """Return the name of a case's run in one process."""
    return f"{case} none".replace(" ", "-")


def config(folder: Path, case: str, sharding: str = "none") -> RunConfig:
    """Return the config of a case without evaluations."""
    changes: dict[str, Any] = {section: dict(values) for section, values in CASES[case].items()}
    changes.pop("evaluation", None)
    training = {"max_steps": 8, "epsilon": 1e-4, "sharding": sharding}
    return tiny_run(
        folder,
        name=f"{case} {sharding}".replace(" ", "-"),
        model={"scratch": SIZE},
        training={**training, **changes.pop("training", {})},
        data={"validation": []},
        **changes,
    )


def steps_apart(one: list[list[float]], other: list[list[float]]) -> tuple[float, float]:
    """Return the largest relative difference of a loss, and of a gradient norm."""
    assert len(one) == len(other) == 8
    loss, norm = (
        max(abs(a[k] - b[k]) / abs(a[k]) for a, b in zip(one, other, strict=True)) for k in (0, 1)
    )
    return loss, norm


def weights_apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the largest norm of the difference of two tensors, relative to that of the first."""
    assert one.keys() == other.keys()
    return max(
        float(torch.linalg.vector_norm(tensor - other[name]) / torch.linalg.vector_norm(tensor))
        for name, tensor in one.items()
    )


if __name__ == "__main__":
    main()
