"""Speed of two processes that share each step, compared with two independent runs side by side.

    python benchmarks/bench_devices.py --model mini
    python benchmarks/bench_devices.py --model gpt2 --steps 3 --rounds 2
    python benchmarks/bench_devices.py --sharding full

Every process is `convo train` with one thread, on the CPU. `two devices` share steps of `--tokens`
tokens over gloo. `two runs` are independent and take steps of half as many tokens, so each process
has the same amount of work. They alternate (A B A B). The table has medians over the rounds, with
their range: tokens per second of wall time after the first `--warmup` steps, that speed relative to
`two runs` in the same round, and the bytes that a process sends in a step (by its TCP sockets),
relative to the size of the gradient.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import work

if TYPE_CHECKING:
    from convo_cli.events import StepDone
    from convo_cli.training.loop import Job
    from convo_cli.training.state import TrainState

_BYTES_SENT = slice(200, 208)  # of Linux's struct tcp_info


class Measured(NamedTuple):
    """Steady steps of one process."""

    tokens: int
    seconds: float
    cpu_seconds: float
    sent: float
    """Bytes in a step."""
    gradient: int
    """Bytes of the whole gradient."""
    peak_gib: float


def main() -> None:
    """Run both kinds in every round and print the table; with --child, run one process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=work.FOLDER / "train.jsonl")
    parser.add_argument("--model", default="mini", choices=work.SIZES)
    parser.add_argument("--tokens", type=int, default=4096, help="of a step that is shared")
    parser.add_argument("--sharding", default="none", choices=["none", "full"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", type=Path, help="file for the result of a process")
    arguments = parser.parse_args()
    if arguments.child:
        measure_a_process(arguments)
        return
    with TemporaryDirectory() as folder:
        make_model_folder(arguments, Path(folder, "model"))
        rounds = [
            [run_two(arguments, Path(folder), kind, number) for kind in ("devices", "runs")]
            for number in range(arguments.rounds)
        ]
    show(arguments, rounds)


def make_model_folder(arguments: argparse.Namespace, folder: Path) -> None:
    """Save a random model and the tokenizer of the other benchmarks, as a pretrained model."""
    from transformers import PreTrainedTokenizerFast

    work.make_model(work.SIZES[arguments.model]).save_pretrained(folder)
    tokenizer = work.make_tokenizer(arguments.data, folder / "bpe.json")
    PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer), pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(folder)


def run_two(arguments: argparse.Namespace, folder: Path, kind: str, number: int) -> list[Measured]:
    """Run two processes that share steps, or two independent ones; return their measurements."""
    is_world = kind == "devices"
    port = free_port()
    results_folder = folder / f"{kind}-{number}"
    results_folder.mkdir()
    processes, results = [], []
    for rank in range(2):
        name = f"{kind}-{number}" if is_world else f"{kind}-{number}-{rank}"
        config = {
            "name": name,
            "output_dir": str(folder / "runs"),
            "seed": number if is_world else 2 * number + rank,
            "data": {"train": [str(arguments.data)]},
            "model": {"pretrained": str(folder / "model")},
            "dialogue": {"template": "turns", "train_on": "all", "max_length": 512},
            "training": {
                "max_steps": 10_000,
                "batch_size": None,
                "batch_tokens": arguments.tokens if is_world else arguments.tokens // 2,
                "device": "cpu",
                "sharding": arguments.sharding if is_world else "none",
            },
            "logging": {"plots": False, "tensorboard": False},
        }
        file = folder / f"{name}.json"
        file.write_text(json.dumps(config))
        world = {
            "RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        environment = {name: str(value) for name, value in world.items()} if is_world else {}
        result = results_folder / str(rank)
        command = [sys.executable, __file__, *sys.argv[1:], "--child", result, "--data", file]
        processes.append(
            subprocess.Popen(
                [str(word) for word in command],
                env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
            )
        )
        results.append(result)
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit(f"{kind}: exit codes {codes}")
    return [Measured(*json.loads(result.with_suffix(".json").read_text())) for result in results]


def free_port() -> int:
    """Return a port that no process uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def measure_a_process(arguments: argparse.Namespace) -> None:
    """Run `convo train`, measure its steps, and exit when both processes have finished."""
    from convo_cli.cli.app import main as run_app
    from convo_cli.training import loop

    train_step, result = loop.train_step, arguments.child
    begin: list[float] = []
    tokens: list[int] = []

    def measured(state: TrainState, job: Job) -> StepDone:
        done = train_step(state, job)
        tokens.append(done.num_tokens)
        num_steps = len(tokens) - arguments.warmup
        if num_steps == 0:
            result.with_suffix(".ready").touch()
            while not have_both_written(result, ".ready"):
                time.sleep(0.001)
            begin.extend(counters())
        elif num_steps == arguments.steps:
            seconds, cpu, sent = (
                after - before for after, before in zip(counters(), begin, strict=True)
            )
            values = Measured(
                sum(tokens[-num_steps:]), seconds, cpu, sent / num_steps,
                sum(4 * one.numel() for one in state.model.parameters()),
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            )  # fmt: skip
            result.with_suffix(".part").write_text(json.dumps(values))
            result.with_suffix(".part").rename(result.with_suffix(".json"))
        # A run alone on the machine would be faster, so the first one to finish continues.
        if num_steps >= arguments.steps and (
            job.world.size > 1 or have_both_written(result, ".json")
        ):
            os._exit(0)
        return done

    loop.train_step = measured
    sys.argv = ["convo", "train", str(arguments.data), "--quiet"]
    run_app()


def have_both_written(result: Path, suffix: str) -> bool:
    """Return whether both processes have written a file."""
    return all(result.with_name(rank).with_suffix(suffix).exists() for rank in ("0", "1"))


def counters() -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds and the bytes that the sockets of this process sent."""
    return time.perf_counter(), time.process_time(), bytes_sent()


def bytes_sent() -> int:
    """Return the bytes that the TCP connections of this process sent; 0 where that is not Linux."""
    total = 0
    for number in open_sockets() if sys.platform == "linux" else ():
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            total += int.from_bytes(info[_BYTES_SENT], sys.byteorder)
    return total


def open_sockets() -> list[int]:
    """Return the numbers of the sockets that this process has open."""
    numbers = []
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of the listing is closed by now
            if str(file.readlink()).startswith("socket:"):
                numbers.append(int(file.name))
    return numbers


def show(arguments: argparse.Namespace, rounds: list[list[list[Measured]]]) -> None:
    """Print medians, ranges and ratios."""
    print(
        f"{arguments.model}, {arguments.tokens:,} tokens a step, sharding {arguments.sharding}, "
        f"{arguments.steps} steps, {arguments.rounds} rounds"
    )
    print(
        f"{'':14}{'tokens/s':>22}{'of two runs':>20}{'CPU s/1k tokens':>17}{'GiB':>6}{'sent':>28}"
    )
    speeds = [[speed_of(two) for two in both] for both in rounds]
    for kind, name in enumerate(("two devices", "two runs")):
        own = [both[kind] for both in speeds]
        shares = [both[kind] / both[1] for both in speeds]
        values = [one for both in rounds for one in both[kind]]
        costs = [
            1000 * sum(one.cpu_seconds for one in both[kind]) / total_tokens(both[kind])
            for both in rounds
        ]
        sent, gradient = statistics.median(one.sent for one in values), values[0].gradient
        print(
            f"{name:14}{spread(own, ',.0f'):>22}{spread(shares, '.1%'):>23}"
            f"{statistics.median(costs):>17.3f}{max(one.peak_gib for one in values):>6.1f}"
            f"{f'{sent / 2**20:,.1f} MiB' if sent else '-':>20}"
            + (f" = {sent / gradient:.3f} gradients" if sent else "")
        )


def speed_of(two: list[Measured]) -> float:
    """Return tokens a second of both processes together; a shared step counts once."""
    if two[0].sent:
        return two[0].tokens / max(one.seconds for one in two)
    return sum(one.tokens / one.seconds for one in two)


def total_tokens(two: list[Measured]) -> int:
    """Return the tokens of both processes; those of a shared step count once."""
    return two[0].tokens if two[0].sent else sum(one.tokens for one in two)


def spread(values: list[float], form: str) -> str:
    """Return median, smallest and largest."""
    low, high = format(min(values), form), format(max(values), form)
    return f"{format(statistics.median(values), form)} ({low}-{high})"


if __name__ == "__main__":
    main()
