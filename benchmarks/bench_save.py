"""Cost of a safe checkpoint, compared with a plain `torch.save` of the same tensors.

    python benchmarks/bench_save.py
    python benchmarks/bench_save.py --layers 26 --rounds 9 --folder /mnt/disk

`save` is what `convo train` does: check that every number is finite and that there is space, write,
flush and hash every file, rename, point, prune. `torch.save` writes model and optimizer into one
file without waiting for the disk; `+ fsync` waits. Every round runs all of them and waits for the
disk before each. The table has the median, smallest and largest of the rounds, in seconds per GB of
tensors: wall time, and CPU time of all threads, which is more reliable on a busy machine. The rows
below are the parts of a save, each alone (flushing and hashing overlap), and a copy of the tensors
in memory: the least time that training would wait if it continued during a save.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from safetensors.torch import save_file

from convo_cli.config.schema import (
    CheckpointsConfig,
    DataConfig,
    ModelConfig,
    RunConfig,
    ScratchConfig,
    TokenizerConfig,
    TrainingConfig,
)
from convo_cli.data.reader import read_dialogues
from convo_cli.model.create import build_scratch_model
from convo_cli.model.loading import save_model
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.selection import point_and_prune
from convo_cli.storage.sealed import file_sha256, verify_directory
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import make_template
from convo_cli.text.tokenizers.trained import (
    add_special_tokens,
    from_sentencepiece,
    train_sentencepiece,
)
from convo_cli.training.optim import make_optimizer
from convo_cli.training.saving import save_checkpoint
from convo_cli.training.state import TrainState

DATA = str(Path(__file__).resolve().parent.parent / "sample_data" / "train.jsonl")
COMPARED = ("torch.save", "torch.save + fsync", "save")


def main() -> None:
    """Parse the command line, measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--layers",
        type=int,
        default=13,
        help="of width 512; 13 have half a GB with AdamW's moments",
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="folder on the disk to measure",
    )
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.folder))
    try:
        compare(folder, arguments)
    finally:
        shutil.rmtree(folder)


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    """Time all of them in every round and print the results."""
    encoder, spiece = make_encoder()
    state = make_state(arguments.layers, encoder)
    tensors = list_tensors(state)
    gigabytes = sum(tensor.nbytes for tensor in tensors.values()) / 1e9
    run = RunDirectory(folder / "run")
    run.checkpoints.mkdir(parents=True)
    parts = folder / "parts"
    parts.mkdir()
    config = RunConfig(
        data=DataConfig(train=("train.jsonl",)),
        model=ModelConfig(scratch=ScratchConfig()),
        training=TrainingConfig(max_steps=1),
        checkpoints=CheckpointsConfig(keep=1),
    )

    def plain() -> None:
        torch.save(
            {"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()},
            folder / "plain.pt",
        )

    def plain_flushed() -> None:
        plain()
        flush(folder / "plain.pt")

    def save() -> None:
        state.progress.step += 1
        save_checkpoint(run, state, encoder, spiece=spiece, emit=lambda event: None)
        point_and_prune(run, run.checkpoint(state.progress.step), config, {})

    def write() -> None:
        save_model(state.model, parts)
        save_file(
            {name: tensor for name, tensor in tensors.items() if "|" in name},
            parts / "optimizer.safetensors",
        )

    ways: dict[str, Callable[[], Any]] = {
        "torch.save": plain,
        "torch.save + fsync": plain_flushed,
        "save": save,
        "  write": write,
        "  flush": lambda: flush(*parts.iterdir()),
        "  hash": lambda: [file_sha256(file) for file in parts.iterdir()],
        "  finite?": lambda: [tensor.sum().isfinite() for tensor in tensors.values()],
        "copy in memory": lambda: {name: tensor.clone() for name, tensor in tensors.items()},
        "verify (resume)": lambda: verify_directory(run.checkpoint(state.progress.step)),
    }
    walls: dict[str, list[float]] = {name: [] for name in ways}
    cpus: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds + 1):
        (folder / "plain.pt").unlink(missing_ok=True)
        for file in parts.iterdir():
            file.unlink()
        for name, way in ways.items():
            if name in COMPARED:
                (folder / "plain.pt").unlink(missing_ok=True)
                os.sync()
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            if number:  # the first round warms up
                walls[name].append((time.perf_counter() - wall) / gigabytes)
                cpus[name].append((time.process_time() - cpu) / gigabytes)
    print(
        f"{len(tensors)} tensors, {gigabytes:.2f} GB, {arguments.rounds} rounds in "
        f"{arguments.folder}"
    )
    print(f"{'':20}{'wall s per GB':>22}{'CPU s per GB':>22}{'/ torch.save':>14}{'/ + fsync':>11}")
    for name, taken in walls.items():
        line = f"{name:20}{spread(taken):>22}{spread(cpus[name]):>22}"
        if name in COMPARED:
            line += f"{beside(taken, walls['torch.save']):>14.2f}"
            line += f"{beside(taken, walls['torch.save + fsync']):>11.2f}"
        print(line)


def make_encoder() -> tuple[DialogueEncoder, bytes]:
    """Train a small tokenizer on the sample data."""
    dialogues = read_dialogues([DATA], DataConfig(train=(DATA,)))
    texts = [turn.text for dialogue in dialogues for turn in dialogue.turns]
    spiece = train_sentencepiece(texts, TokenizerConfig(vocab_size=900))
    tokenizer = from_sentencepiece(spiece)
    template = make_template("turns", tokenizer)
    add_special_tokens(tokenizer, template.special_tokens)
    tokenizer.eos_token = tokenizer.pad_token = template.stop_tokens[-1]
    return DialogueEncoder(tokenizer, template, max_length=128), spiece


def make_state(layers: int, encoder: DialogueEncoder) -> TrainState:
    """Return a GPT-2 with random weights after one update with a random gradient."""
    size = ScratchConfig(layers=layers, width=512, heads=8, context=512)
    model = build_scratch_model(size, encoder, seed=0)
    optimizer = make_optimizer(model, TrainingConfig(max_steps=1))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))


def list_tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """Return weights by name, and moments by name and kind."""
    weights = {name: parameter.detach() for name, parameter in state.model.named_parameters()}
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    moments = {
        f"{names[id(parameter)]}|{kind}": tensor
        for parameter, kinds in state.optimizer.state.items()
        for kind, tensor in kinds.items()
    }
    return {**weights, **moments}


def flush(*files: Path) -> None:
    """Wait until the files are on the disk."""
    for file in files:
        with file.open("r+b") as opened:
            os.fsync(opened.fileno())


def spread(values: list[float]) -> str:
    """Format the median with the smallest and largest value."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def beside(taken: list[float], others: list[float]) -> float:
    """Return the median of the ratios in each round."""
    return statistics.median(one / other for one, other in zip(taken, others, strict=True))


if __name__ == "__main__":
    main()
