"""Validation loss of convo and HF Trainer after the same tokens, over several seeds.

    python benchmarks/bench_loss.py --peers-python PYTHON

Both train the same random GPT-2 on the same dialogues for the same steps: AdamW without weight
decay, a rate that falls linearly to zero, clipping, no dropout. Each draws its own order. The loss
in nats a token on the same validation dialogues is computed one dialogue at a time by transformers
alone. PYTHON needs torch, transformers, accelerate and datasets. The two are equally good if their
means differ by less than the spread between seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import work

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from convo_cli.model.batches.loss import Batch

LEARNING_RATE = 1e-3


def main() -> None:
    """Run both for every seed, or one of them as a child."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=work.FOLDER, help="folder with train.jsonl and valid.jsonl"
    )
    parser.add_argument("--tokenizer", type=Path, help="default: one is trained")
    parser.add_argument("--model", default="tiny", choices=work.SIZES)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers-python", type=Path, help="default: only convo runs")
    parser.add_argument("--child", choices=["convo", "trainer"])
    arguments = parser.parse_args()
    if arguments.child:
        model = train_convo(arguments) if arguments.child == "convo" else train_trainer(arguments)
        print(json.dumps(validation_loss(model, encode(arguments, "valid.jsonl")[:400])))
        return
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = arguments.tokenizer or work.make_tokenizer(
            arguments.data / "train.jsonl", Path(folder, "bpe.json")
        )
        compare(arguments, tokenizer)


def compare(arguments: argparse.Namespace, tokenizer: Path) -> None:
    """Train both with every seed, alternating, and print the losses."""
    pythons = {"convo": sys.executable}
    if arguments.peers_python:
        pythons["trainer"] = arguments.peers_python
    losses: dict[str, list[float]] = {child: [] for child in pythons}
    for seed in range(arguments.seeds):
        for child, python in pythons.items():
            options = ["--tokenizer", tokenizer, "--child", child, "--seed", seed]
            command = [str(word) for word in (python, __file__, *sys.argv[1:], *options)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            losses[child].append(json.loads(done.stdout.splitlines()[-1]))
        latest = ", ".join(f"{child} {values[-1]:.4f}" for child, values in losses.items())
        print(f"seed {seed}: {latest}", flush=True)
    for child, values in losses.items():
        print(
            f"{child:8} mean {statistics.mean(values):.4f}, standard deviation "
            f"{statistics.stdev(values):.4f}"
        )


def encode(arguments: argparse.Namespace, name: str) -> list[list[int]]:
    """Return the ids of each dialogue in a file."""
    context = work.SIZES[arguments.model][1]
    return [ids for ids, _ in work.encode(arguments.data / name, arguments.tokenizer, context)]


def train_convo(arguments: argparse.Namespace) -> PreTrainedModel:
    """Train with convo's loop and packing."""
    import numpy as np
    import torch
    from steps import Steps

    from convo_cli.config.schema import TrainingConfig
    from convo_cli.model.batches.batching import choose_batching
    from convo_cli.model.create import use_fast_activations
    from convo_cli.tokens.order import Order
    from convo_cli.tokens.phase import Phase
    from convo_cli.tokens.store import ASSISTANT_TARGET, Example
    from convo_cli.training.loop import train_step
    from convo_cli.training.optim import make_optimizer
    from convo_cli.training.state import TrainState

    kinds = {ASSISTANT_TARGET}
    examples = []
    for row in encode(arguments, "train.jsonl"):
        targets = np.full(len(row), ASSISTANT_TARGET, np.uint8)
        targets[0] = 0
        examples.append(Example(np.array(row, np.int32), targets))
    torch.set_num_threads(2)
    model = work.make_model(work.SIZES[arguments.model], seed=arguments.seed)
    use_fast_activations(model)
    batching = choose_batching(
        model,
        examples[:3],
        kinds,
        pad_id=work.PAD,
        autocast=nullcontext,
        packing="on",
        emit=lambda event: None,
    )
    config = TrainingConfig(max_steps=1, weight_decay=0.0, betas=(0.9, 0.999))
    optimizer = make_optimizer(model, config)
    state = TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))

    lengths = np.array([len(example.input_ids) for example in examples])
    order = Order(lengths, arguments.seed, [Phase(batch=arguments.batch)])

    def batches_of(step: int) -> list[Batch]:
        return [batching.batch([examples[index] for index in order.examples(step)], kinds)]

    def learning_rate_of(step: int) -> float:
        return LEARNING_RATE * (1 - step / arguments.steps)

    job = Steps(model, batching, batches_of, learning_rate_of, seed=arguments.seed)
    for _ in range(arguments.steps):
        train_step(state, job)
    return model


def train_trainer(arguments: argparse.Namespace) -> PreTrainedModel:
    """Train with transformers' Trainer and padded batches."""
    import torch
    from datasets import Dataset
    from transformers import (
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
        Trainer,
        TrainingArguments,
    )

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(arguments.tokenizer), pad_token="<pad>")
    torch.set_num_threads(2)
    model = work.make_model(work.SIZES[arguments.model], seed=arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder, per_device_train_batch_size=arguments.batch, use_cpu=True,
                max_steps=arguments.steps, learning_rate=LEARNING_RATE, save_strategy="no",
                report_to="none", disable_tqdm=True, logging_steps=10**6, seed=arguments.seed,
                dataloader_pin_memory=False,
            ),
            train_dataset=Dataset.from_dict({"input_ids": encode(arguments, "train.jsonl")}),
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        ).train()  # fmt: skip
    return model


def validation_loss(model: PreTrainedModel, rows: list[list[int]]) -> float:
    """Return nats a token, from transformers' own forward pass over one dialogue at a time."""
    import torch

    model.eval()
    model.set_attn_implementation("sdpa")
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor(row)
            logits = model(ids.unsqueeze(0)).logits[0, :-1].float()
            total += float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum"))
            count += len(row) - 1
    return total / count


if __name__ == "__main__":
    main()
