"""Profile of training steps by kind of work, from torch's own profiler.

    python benchmarks/train_convo.py --tokenizer bpe8000.json --threads 1 --profile

The name of an operator, or of one that calls it, decides the kind. Times are self times, without
those of called operators. `outside operators` is Python, autograd and the profiler itself.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from typing import Any

from steps import Steps
from torch.profiler import ProfilerActivity, profile

from convo_cli.training.loop import train_step
from convo_cli.training.state import TrainState

CALLERS = {
    "AdamW": "optimizer",
    "_ChunkedNll": "loss without its products",
    "attention": "attention",
    "clip_grad_norm": "norm and clipping",
    "gelu": "GELU",
    "layer_norm": "LayerNorm",
    "embedding": "embeddings",
    "AddmmBackward": "gradients of biases",
    "AccumulateGrad": "adding gradients",
}
"""Kind of work by a part of the name of an operator or a caller; the first match counts."""
PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm")
NORM = ("aten::_foreach_norm", "aten::linalg_vector_norm", "aten::_foreach_mul_")
COPIES = ("aten::copy_", "aten::cat", "aten::fill_", "aten::index_select", "aten::index")


def profile_steps(state: TrainState, job: Steps, *, num_steps: int) -> None:
    """Take steps and print the share of each kind of work."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    num_tokens = 0
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(num_steps):
            num_tokens += train_step(state, job).num_tokens
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    kinds: Counter[str] = Counter()
    names: dict[str, Counter[str]] = {}
    for event in profiler.events() or ():
        kind = kind_of(event)
        kinds[kind] += event.self_cpu_time_total / 1e6
        names.setdefault(kind, Counter())[event.name] += event.self_cpu_time_total / 1e6
    kinds["outside operators"] = max(0.0, seconds - kinds.total())
    print(f"{num_steps} steps, {num_tokens:,} tokens, {seconds:.2f} s")
    for kind, spent in kinds.most_common():
        largest = ", ".join(
            f"{name} {part / spent:.0%}" for name, part in names.get(kind, Counter()).most_common(3)
        )
        print(f"{kind:28}{spent / seconds:>7.1%}  {largest}")
    system = after.ru_stime - used.ru_stime
    total = system + after.ru_utime - used.ru_utime
    print(f"in the kernel of the system (page faults): {system / total:.1%} of {total:.2f} CPU s")


def kind_of(event: Any) -> str:
    """Return the kind of work of an operator."""
    if event.name in PRODUCTS:
        return "matrix products"
    chain = []
    while event is not None:
        chain.append(event.name)
        event = event.cpu_parent
    for part, kind in CALLERS.items():
        if any(part in name for name in chain):
            return kind
    if chain[0] in NORM:
        return "norm and clipping"
    if chain[0] in COPIES:
        return "copies"
    return "other element-wise work"
