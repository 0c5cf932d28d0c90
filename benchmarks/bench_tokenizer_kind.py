"""Unigram and BPE pieces: loss of the same model in nats a byte, and tokens a text.

    python benchmarks/bench_tokenizer_kind.py
    python benchmarks/bench_tokenizer_kind.py --train my.jsonl --test held-out.jsonl

For each number of pieces, both kinds are trained on the training file, and a new GPT-2 is trained
with each of them twice: with the same dialogues in each step, so both see the same text, and with
the same tokens in each step, so both cost the same. The loss of all turns of the test file is
divided by the bytes of their texts, because a loss per token depends on the tokens. Both kinds
begin with the same weights and have the same order of dialogues for each seed. The loss is also
computed after an eighth, a quarter and a half of the steps, because its difference changes: a model
that has learned only how often each piece occurs favours unigram, whose pieces are chosen for that.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import work
from steps import Steps

from convo_cli.config.schema import DataConfig, ScratchConfig, TokenizerConfig, TrainingConfig
from convo_cli.data.reader import read_dialogues
from convo_cli.model.batches.batching import choose_batching
from convo_cli.model.create import build_scratch_model
from convo_cli.text.encoder import DialogueEncoder
from convo_cli.text.templates.template import make_template
from convo_cli.text.tokenizers.trained import (
    add_special_tokens,
    from_sentencepiece,
    train_sentencepiece,
)
from convo_cli.tokens.order import Order
from convo_cli.tokens.phase import Phase
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET, Example
from convo_cli.training.loop import train_step
from convo_cli.training.optim import make_optimizer
from convo_cli.training.state import TrainState

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from convo_cli.data.dialogue import Dialogue
    from convo_cli.model.batches.batching import Batching
    from convo_cli.model.batches.loss import Batch

KINDS: tuple[Literal["unigram", "bpe"], ...] = ("unigram", "bpe")
UNITS: tuple[Literal["examples", "tokens"], ...] = ("examples", "tokens")
TARGETS = {ASSISTANT_TARGET, USER_TARGET}
LEARNING_RATE = 2e-3


@dataclass(frozen=True)
class Encoded:
    """A tokenizer of one kind and the dialogues in its tokens."""

    encoder: DialogueEncoder
    train: list[Example]
    test: list[Example]
    num_bytes: int
    """UTF-8 bytes of the test texts."""
    about: str


def main() -> None:
    """Compare the kinds for each number of pieces, and print a line for each pair of runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, default=work.FOLDER / "train.jsonl")
    parser.add_argument("--test", type=Path, default=work.FOLDER / "valid.jsonl")
    parser.add_argument("--pieces", type=int, nargs="+", default=[2000, 8000])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=320, help="a multiple of 8")
    parser.add_argument("--batch", type=int, default=16, help="dialogues in a step")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--test-dialogues", type=int, default=10**6)
    arguments = parser.parse_args()
    train, test = read(arguments.train), read(arguments.test)[: arguments.test_dialogues]
    print(f"{len(train):,} dialogues to train on, {len(test):,} to score", flush=True)
    for pieces in arguments.pieces:
        encoded = {}
        for kind in KINDS:
            config = TokenizerConfig(kind=kind, vocab_size=pieces)
            encoded[kind] = encode(config, train, test, arguments.context)
            print(f"\n{kind} of {pieces:,}: {encoded[kind].about}", end="", flush=True)
        print()
        tokens = statistics.mean(len(one.input_ids) for one in encoded[KINDS[0]].train)
        for unit in UNITS:
            batch = arguments.batch if unit == "examples" else round(arguments.batch * tokens)
            compare(arguments, encoded, Phase(batch=batch, unit=unit))


def read(file: Path) -> list[Dialogue]:
    """Return the dialogues of a file."""
    return list(read_dialogues([str(file)], DataConfig(train=(str(file),))))


def encode(
    config: TokenizerConfig, train: list[Dialogue], test: list[Dialogue], context: int
) -> Encoded:
    """Train a tokenizer and encode the dialogues with it."""
    started = time.monotonic()
    tokenizer = from_sentencepiece(
        train_sentencepiece((turn.text for one in train for turn in one.turns), config)
    )
    seconds = time.monotonic() - started
    size = len(tokenizer)
    template = make_template("turns", tokenizer)
    add_special_tokens(tokenizer, template.special_tokens)
    encoder = DialogueEncoder(tokenizer, template, max_length=context)
    texts = [turn.text for one in test for turn in one.turns]
    num_tokens = sum(map(len, encoder.text_ids(texts)))
    num_bytes = sum(len(text.encode()) for text in texts)
    about = (
        f"{size:,} pieces in {seconds:.1f} s; {num_tokens / len(texts):.2f} tokens a text, "
        f"{num_bytes / num_tokens:.2f} bytes a token"
    )
    rows = [
        list(chain.from_iterable(encoder.encode(dialogues, "all"))) for dialogues in (train, test)
    ]
    return Encoded(encoder, *rows, num_bytes, about)


def compare(arguments: argparse.Namespace, encoded: dict[str, Encoded], phase: Phase) -> None:
    """Train with both kinds and every seed, and print the losses and their differences."""
    curves = {
        kind: [losses(arguments, one, phase, seed) for seed in range(arguments.seeds)]
        for kind, one in encoded.items()
    }
    print(f"\nsteps of {phase.batch} {phase.unit}; nats a byte for each seed")
    for point, step in enumerate(curves[KINDS[0]][0]):
        at = {kind: [list(curve.values())[point] for curve in curves[kind]] for kind in KINDS}
        unigram, bpe = (statistics.mean(at[kind]) for kind in KINDS)
        shown = "  ".join(f"{kind} {' '.join(f'{one:.4f}' for one in at[kind])}" for kind in KINDS)
        print(f"{step:6}  {shown}  bpe {100 * (bpe / unigram - 1):+.2f} %", flush=True)


def losses(
    arguments: argparse.Namespace, encoded: Encoded, phase: Phase, seed: int
) -> dict[int, float]:
    """Train a new model and return its loss on the test texts in nats a byte, by step."""
    size = ScratchConfig(
        layers=arguments.layers,
        width=arguments.width,
        heads=max(1, arguments.width // 64),
        context=arguments.context,
        dropout=0.0,
    )
    model = build_scratch_model(size, encoded.encoder, seed)
    batching = choose_batching(
        model,
        encoded.train[:3],
        TARGETS,
        pad_id=encoded.encoder.pad_id,
        autocast=nullcontext,
        packing="auto",
        emit=lambda event: None,
    )
    lengths = np.array([len(example.input_ids) for example in encoded.train])
    order = Order(lengths, seed, [phase])

    def batches_of(step: int) -> list[Batch]:
        return [batching.batch([encoded.train[index] for index in order.examples(step)], TARGETS)]

    def learning_rate_of(step: int) -> float:
        warm = min(1.0, (step + 1) / (0.1 * arguments.steps))
        return LEARNING_RATE * warm * (1 + math.cos(math.pi * step / arguments.steps)) / 2

    optimizer = make_optimizer(model, TrainingConfig(max_steps=1))
    state = TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))
    job = Steps(model, batching, batches_of, learning_rate_of, seed=seed)
    found = {}
    for step in range(1, arguments.steps + 1):
        train_step(state, job)
        if step * 8 in {arguments.steps * part for part in (1, 2, 4, 8)}:
            found[step] = nll(model, batching, encoded.test) / encoded.num_bytes
    return found


@torch.inference_mode()
def nll(model: PreTrainedModel, batching: Batching, examples: list[Example]) -> float:
    """Return the sum of the nll of all targets in nats."""
    model.eval()
    rows = sorted(examples, key=lambda example: len(example.input_ids))
    chunks = (rows[start : start + 16] for start in range(0, len(rows), 16))
    return sum(float(batching.nll_sum(model, batching.batch(chunk, TARGETS))) for chunk in chunks)


if __name__ == "__main__":
    main()
