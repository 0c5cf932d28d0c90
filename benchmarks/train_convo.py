"""Train a GPT-2 of a given size for a few steps with convo's loop, and print the cost as JSON.

    python benchmarks/train_convo.py --data data/dailydialog/train.jsonl --tokenizer bpe8000.json

`bench_train.py` alternates it with the drivers of other trainers, which do the same work: the same
dialogues as <bos> t0 <sep> t1 <sep> …, cut at the context, the same random model, AdamW with
clipping, fp32, every token but <bos> a target (`--labels assistant`: only the odd turns).
`--without` turns one technique off; `--gemm` measures only the matrix products of a step, which are
a lower bound of its time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import work
from profile_steps import profile_steps
from steps import Steps

from convo_cli.config.schema import TrainingConfig
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.model.batches.batching import choose_batching, proof_examples
from convo_cli.model.batches.loss import Batch
from convo_cli.model.cost import peak_flops
from convo_cli.model.create import use_fast_activations
from convo_cli.model.device import autocast_for, move
from convo_cli.tokens.order import Order
from convo_cli.tokens.phase import Phase
from convo_cli.tokens.store import ASSISTANT_TARGET, NO_TARGET, Encoded, Example, TokenStore
from convo_cli.training.loop import train_step
from convo_cli.training.optim import make_optimizer
from convo_cli.training.state import TrainState

TECHNIQUES = ("packing", "target-loss", "fused-adamw", "fast-gelu", "none")


def main() -> None:
    """Parse the command line, train, and print one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=work.FOLDER / "train.jsonl",
        help="JSONL: a list of texts a line",
    )
    parser.add_argument(
        "--tokenizer",
        required=True,
        type=Path,
        help="a tokenizer.json with 0 pad 1 bos 2 eos 3 sep",
    )
    parser.add_argument("--model", default="mini", choices=work.SIZES)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16, help="dialogues per step")
    parser.add_argument(
        "--dropout", type=float, default=0.0, help="of embeddings, residuals and attention"
    )
    parser.add_argument("--labels", default="all", choices=["all", "assistant"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--without", default="none", choices=TECHNIQUES)
    parser.add_argument(
        "--gemm", action="store_true", help="measure the matrix products of the same steps alone"
    )
    parser.add_argument(
        "--profile", action="store_true", help="print the share of each kind of work instead"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    store = load(arguments)
    if arguments.profile:
        state, job = prepare(arguments, store)
        for _ in range(arguments.warmup):
            train_step(state, job)
        profile_steps(state, job, num_steps=arguments.steps)
        return
    result = gemm_limit(arguments, store) if arguments.gemm else train(arguments, store)
    print(json.dumps(result), flush=True)


def load(arguments: argparse.Namespace) -> TokenStore:
    """Return the dialogues, encoded as in the drivers of the peers."""
    pairs = []
    for number, (ids, turns) in enumerate(
        work.encode(arguments.data, arguments.tokenizer, work.SIZES[arguments.model][1])
    ):
        is_target = [turn >= 0 and (arguments.labels == "all" or turn % 2 == 1) for turn in turns]
        targets = np.where(is_target, ASSISTANT_TARGET, NO_TARGET).astype(np.uint8)
        pairs.append(
            (
                Dialogue((Turn("user", ""),), number),
                Encoded([Example(np.array(ids, np.int32), targets)], len(ids)),
            )
        )
    return TokenStore.build(pairs)


def prepare(arguments: argparse.Namespace, store: TokenStore) -> tuple[TrainState, Steps]:
    """Return a random model with its optimizer, and its steps."""
    device = torch.device(arguments.device)
    model = work.make_model(
        work.SIZES[arguments.model], seed=arguments.seed, dropout=arguments.dropout
    )
    if arguments.without != "fast-gelu":
        use_fast_activations(model)
    move(model, device)
    batching = choose_batching(
        model, proof_examples(store, {ASSISTANT_TARGET}), {ASSISTANT_TARGET}, pad_id=work.PAD,
        packing="off" if arguments.without == "packing" else "on", emit=lambda event: None,
        autocast=autocast_for(device, arguments.precision),
    )  # fmt: skip
    if arguments.compile:
        model.base_model.compile(dynamic=True)
    if arguments.without == "target-loss":
        batching = replace(batching, has_plain_head=False)
    optimizer = make_optimizer(model, TrainingConfig(max_steps=1))
    if arguments.without == "fused-adamw":
        for group in optimizer.param_groups:
            group["fused"] = False
    scaler = torch.amp.GradScaler(device.type, enabled=arguments.precision == "fp16")
    state = TrainState(model, optimizer, scaler)
    order = Order(store.lengths, arguments.seed, [Phase(batch=arguments.batch)])

    def batches_of(step: int) -> list[Batch]:
        chosen = order.examples(step)
        chosen = chosen[np.argsort(store.lengths[chosen], kind="stable")]
        return [
            batching.batch([store[int(index)] for index in chosen[part]], {ASSISTANT_TARGET})
            for part in batching.split(store.lengths[chosen], len(chosen))
        ]

    job = Steps(
        model,
        batching,
        batches_of,
        lambda step: 5e-4,
        seed=arguments.seed,
        precision=arguments.precision,
    )
    return state, job


def train(arguments: argparse.Namespace, store: TokenStore) -> dict[str, object]:
    """Take the steps with `convo_cli.training.loop` and measure them."""
    state, job = prepare(arguments, store)
    device = state.model.device
    seconds, tokens = [], 0
    for step in range(arguments.warmup + arguments.steps):
        if step == arguments.warmup:
            tokens, job.slots, job.flops = 0, 0, 0.0
            wall, cpu = time.perf_counter(), time.process_time()
        done = train_step(state, job)
        seconds.append(done.seconds)
        tokens += done.num_tokens
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = peak_flops(device, arguments.precision)
    return {
        "peer": "convo" if arguments.without == "none" else f"convo without {arguments.without}",
        "model": arguments.model,
        "real_tokens_per_s": tokens / wall,
        "real_tokens_per_cpu2_s": 2 * tokens / cpu,
        "loss": done.loss,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_device_mb": torch.cuda.max_memory_allocated(device) / 2**20 if peak else None,
        "model_flops_utilisation": job.flops / wall / peak if peak else None,
        "real_tokens": tokens,
        "slots": job.slots,
        "fill": tokens / job.slots,
        "wall_s": wall,
        "cpu_s": cpu,
        "median_step_s": statistics.median(seconds[arguments.warmup :]),
    }


def gemm_limit(arguments: argparse.Namespace, store: TokenStore) -> dict[str, object]:
    """Measure tokens a second if a step were only its matrix products, forward and backward."""
    vocabulary, _, layers, width, _ = work.SIZES[arguments.model]
    order = Order(store.lengths, arguments.seed, [Phase(batch=arguments.batch)])
    tokens = targets = 0
    seconds = cpu = 0.0
    for step in range(arguments.steps):
        examples = [store[int(index)] for index in order.examples(step)]
        rows = sum(len(example.input_ids) for example in examples)
        trained = sum(int((example.targets != NO_TARGET).sum()) for example in examples)
        products = [
            (rows, width, 3 * width),
            (rows, width, width),
            (rows, width, 4 * width),
            (rows, 4 * width, width),
        ]
        for (count, inner, outer), times in [(product, layers) for product in products] + [
            ((trained, width, vocabulary), 1)
        ]:
            x, w, y = (
                torch.randn(count, inner),
                torch.randn(inner, outer),
                torch.randn(count, outer),
            )
            for _ in range(2):  # the first one warms the caches
                begun, used = time.perf_counter(), time.process_time()
                for _ in range(times):
                    x @ w, y @ w.T, x.T @ y
                took, worked = time.perf_counter() - begun, time.process_time() - used
            seconds += took
            cpu += worked
        tokens, targets = tokens + rows, targets + trained
    return {
        "peer": "matrix products alone",
        "model": arguments.model,
        "real_tokens_per_s": tokens / seconds,
        "real_tokens_per_cpu2_s": 2 * tokens / cpu,
        "targets": targets,
    }


if __name__ == "__main__":
    main()
