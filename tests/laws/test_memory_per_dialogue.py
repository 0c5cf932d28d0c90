"""Memory grows by at most 100 bytes a dialogue, in every stage up to step 1 and in an evaluation.

Real stores of two sizes go through the functions of each stage, and the law is about the growth of
the traced peak, in which numpy's arrays are counted. The slow test is about the whole process.
"""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convo_cli.config.schema import DataConfig
from convo_cli.data.dialogue import Dialogue, Turn
from convo_cli.evaluation.likelihood import length_sorted_rows
from convo_cli.metrics.floors import training_replies
from convo_cli.model.batches.batching import Batching
from convo_cli.prepare.preflight import (
    count_tokens,
    find_leaks,
    report_replies,
    tokens_per_dialogue,
)
from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.provenance.training_dialogues import record_training_dialogues
from convo_cli.tokens.order import Order
from convo_cli.tokens.phase import Phase
from convo_cli.tokens.shares import file_shares
from convo_cli.tokens.store import ASSISTANT_TARGET, Encoded, Example, TokenStore
from convo_cli.tokens.store_check import require_valid_store
from convo_cli.tokens.store_writer import write

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT = 100  # bytes a dialogue
NOISE = 32 * 2**20
"""Bytes that glibc keeps of an encoding and of the first evaluation, once, whatever their length.

From 20,000 to 120,000 dialogues they were 8 to 29 MiB, from 10^5 to 10^6 dialogues 7 MiB.
"""
PART = 1000  # dialogues
WEIGHTED = [{"path": "a", "weight": 1}, {"path": "b", "weight": 2}]


def write_store(folder, num_dialogues, num_windows, seed):
    """Write a store of two files, whose dialogues have different fingerprints and lengths."""
    folder.mkdir()
    random = np.random.default_rng(seed)

    def example(size):
        targets = np.array([0] + [ASSISTANT_TARGET] * (size - 1), np.uint8)
        return Example(np.arange(size, dtype=np.int32), targets)

    encoded = [
        (
            Dialogue((Turn("user", f"{number}"), Turn("assistant", "b")), number + 1, "a"),
            Encoded([example(4 + (number + k) % 7) for k in range(num_windows)], 20),
        )
        for number in range(PART)
    ]
    part = TokenStore.build(encoded, ["a", "b"])

    def varied(number):
        dialogues = np.array(part.dialogues)
        dialogues["fingerprint"] = random.integers(0, 2**63, PART)
        dialogues["file"] = 2 * number * PART >= num_dialogues
        return replace(part, dialogues=dialogues)

    write((varied(number) for number in range(num_dialogues // PART)), folder)
    return folder


def stages(folder, num_dialogues):
    """Yield the name of each stage after it has run; what it returns stays in memory."""
    store = TokenStore.open(folder / "train")
    require_valid_store(store, num_ids=100, max_length=20, num_files=2)
    yield "opening the store"
    count_tokens(store, 256)
    tokens_per_dialogue(store)
    report_replies(store, "training", 256, lambda event: None)
    yield "counting tokens"
    held_out = TokenStore.open(folder / "validation")
    list(find_leaks({"train": store, "validation": held_out}, {"train": "ab", "validation": "ab"}))
    yield "finding leaks"
    files = [(size, 1 + file) for file, size in store.file_stretches]
    for unit, batch in (("examples", 32), ("tokens", 500)):
        order = Order(store.lengths, 1, [Phase(batch=batch, unit=unit)], files)
        last = order.num_steps(2.5)
        order.examples(last // 2)
        order.examples(last)
        yield f"order by {unit}"
        order.total(store.lengths, last)
        order.total(store.targets_per_example(ASSISTANT_TARGET), last)
        file_shares(DataConfig.model_validate({"train": WEIGHTED}), store, order, last)
        yield f"plan by {unit}"
    run = RunDirectory(folder / "run")
    run.path.mkdir()
    for name in ("hashes of a new run", "hashes of a resume"):
        record_training_dialogues(run, store.kept_fingerprints, run, lambda event: None)
        yield name
    batching = Batching(True, True, 0, None, "one example length at a time")
    for _ in length_sorted_rows(store, batching, max_slots=8192):
        pass
    yield "rows of an evaluation"
    turns = ([("user", f"{n}"), ("assistant", f"reply {n}")] for n in range(num_dialogues))
    training_replies(turns, "the training data")
    yield "replies of the training data"


# A window of a long dialogue is an example of its own.
@pytest.mark.parametrize(("num_windows", "sizes"), [(1, (20_000, 100_000)), (4, (10_000, 40_000))])
def test_no_stage_needs_more_than_100_bytes_a_dialogue(tmp_path, num_windows, sizes):
    peaks = []
    for size in sizes:
        folder = tmp_path / str(size)
        folder.mkdir()
        for seed, name in enumerate(("train", "validation")):
            write_store(folder / name, size, num_windows, seed)
        gc.collect()
        tracemalloc.start()
        found = {}
        for name in stages(folder, size):
            found[name] = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
        tracemalloc.stop()
        peaks.append(found)
    num_more = 2 * (sizes[1] - sizes[0])  # training and validation
    growth = {name: (peaks[1][name] - peaks[0][name]) / num_more for name in peaks[0]}
    assert {name: value for name, value in growth.items() if value > LIMIT} == {}


@pytest.mark.slow
def test_a_whole_command_grows_by_at_most_100_bytes_a_dialogue(tmp_path):
    """Real commands with validation and test data, as the benchmark measures them."""
    command = [sys.executable, ROOT / "benchmarks" / "bench_memory.py", "--folder", tmp_path]
    sizes = ["--dialogues", "20000", "320000", "--case", "evaluated", "--all-commands"]
    done = subprocess.run([*command, *sizes], capture_output=True, text=True, check=True)
    growth = re.findall(r"(\S+) +320,000 dialogues.*?([+-][\d.]+) bytes a dialogue", done.stdout)
    assert [name for name, _ in growth] == ["train", "run", "resume", "config", "validate"]
    limit = LIMIT + NOISE / 300_000
    assert {name: float(value) for name, value in growth if float(value) > limit} == {}
