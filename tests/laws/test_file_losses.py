"""The loss of a step by training file: its parts, whichever way the step is computed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from convo_cli.model.batches import loss
from convo_cli.model.batches.batching import Batching
from convo_cli.model.batches.file_losses import FileLosses, count_targets
from convo_cli.model.loading import load_model
from convo_cli.runs.directory import RunDirectory
from convo_cli.tokens.order import share_of
from convo_cli.tokens.store import ASSISTANT_TARGET, USER_TARGET, Example
from convo_cli.training.job import RunJob
from convo_cli.training.run import start_run
from tests.conftest import SAMPLE_DATA

SIZE = {"layers": 2, "width": 32, "heads": 2, "context": 128, "dropout": 0.0}
WAYS = {
    "packed": {},
    "padded": {"packing": "off"},
    "packed micro-batches": {"micro_batch_size": 2},
    "padded micro-batches": {"packing": "off", "micro_batch_size": 1},
    "all logits": {},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three files; the last has one dialogue, which most steps lack."""
    folder = tmp_path_factory.mktemp("files")
    lines = (SAMPLE_DATA / "valid.jsonl").read_text().splitlines()
    for name, part in (("a", lines[:8]), ("b", lines[8:20]), ("c", lines[20:21])):
        (folder / f"{name}.jsonl").write_text("\n".join(part) + "\n")
    return [str(folder / f"{name}.jsonl") for name in "abc"]


def records(make_config, folder, training, **data):
    """The steps in the log of a run."""
    config = make_config(
        folder, model={"scratch": SIZE}, data={"validation": [], **data},
        training={"max_steps": 3, "batch_size": 7, **training},
    )  # fmt: skip
    run = RunDirectory(start_run(config, lambda event: None).run_dir)
    found = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return run, [record for record in found if record["event"] == "step"]


def alone(model, store, file, examples):
    """Mean nll of the targets of a file in some examples, by all logits of one at a time."""
    of_file = [store[k] for k in examples if store.dialogues["file"][store.dialogue_of[k]] == file]
    batches = [loss.pad([one], {ASSISTANT_TARGET}, 0) for one in of_file]
    with torch.inference_mode():
        nll = sum(float(loss.plain_nll_sum(model.eval(), batch)) for batch in batches)
    num = sum(batch.num_targets for batch in batches)
    return (nll / num if num else None), num


def test_the_loss_of_each_file_is_that_of_its_examples_alone_in_every_way_to_compute_a_step(
    make_config, tmp_path, files, monkeypatch
):
    seen, plan, nll = {}, RunJob.plan, Batching.nll

    def watched(job, step):
        seen[step] = job._parts.data.train, job._parts.order.examples(step)
        return plan(job, step)

    monkeypatch.setattr(RunJob, "plan", watched)
    all_steps = []
    for way, training in WAYS.items():
        of_way = (lambda _, *batch: loss.plain_nll(*batch)) if way == "all logits" else nll
        monkeypatch.setattr(Batching, "nll", of_way)
        run, steps = records(make_config, tmp_path / way.replace(" ", "-"), training, train=files)
        all_steps.append(steps)
    model = load_model(str(run.checkpoint(0)))
    expected = [alone(model, seen[0][0], file, seen[0][1]) for file in range(3)]
    assert steps[0]["num_targets_by_file"] == [num for _, num in expected]
    assert steps[0]["loss_by_file"] == [
        mean and pytest.approx(mean, rel=1e-5) for mean, _ in expected
    ]
    assert any(step["loss_by_file"][2] is None for step in steps)
    assert any(step["loss_by_file"][2] is not None for step in steps)
    for steps in all_steps:
        for step, first in zip(steps, all_steps[0], strict=True):
            assert step["num_targets_by_file"] == first["num_targets_by_file"]
            for one, other in zip(step["loss_by_file"], first["loss_by_file"], strict=True):
                assert one == (other and pytest.approx(other, rel=1e-4))
            parts = zip(step["loss_by_file"], step["num_targets_by_file"], strict=True)
            assert [(one is None) == (num == 0) for one, num in parts] == [True] * 3
            total = math.fsum(
                (one or 0) * num
                for one, num in zip(step["loss_by_file"], step["num_targets_by_file"], strict=True)
            )
            assert sum(step["num_targets_by_file"]) == step["num_targets"]
            assert step["loss"] == pytest.approx(total / step["num_targets"], rel=1e-6)


def test_several_files_change_no_loss_of_a_step_and_a_single_file_has_no_parts(
    make_config, tmp_path, files
):
    whole = tmp_path / "whole.jsonl"
    whole.write_bytes(b"".join(Path(file).read_bytes() for file in files))
    _, one = records(make_config, tmp_path / "one", {}, train=[str(whole)])
    _, three = records(make_config, tmp_path / "three", {}, train=files)
    assert [step["loss"] for step in one] == [step["loss"] for step in three]
    assert [step["grad_norm"] for step in one] == [step["grad_norm"] for step in three]
    assert all(step["loss_by_file"] == step["num_targets_by_file"] == [] for step in one)


def test_the_parts_of_processes_add_up_and_a_repeated_pass_counts_once():
    """Under fp16 a step may be repeated, and a process may have no example of a step."""
    random = np.random.default_rng(0)
    examples = [
        Example(np.arange(length, dtype=np.int32), random.integers(0, 3, length).astype(np.uint8))
        for length in (2, 5, 3, 9, 4)
    ]
    lengths = np.array([len(one.input_ids) for one in examples])
    files = np.array([0, 2, 2, 0, 3])
    for kinds in ({ASSISTANT_TARGET}, {ASSISTANT_TARGET, USER_TARGET}, set()):
        counts = count_targets(examples, kinds)
        assert counts.tolist() == [loss.pad([one], kinds, 0).num_targets for one in examples]
        nll = [random.random(num) for num in counts]
        for size in (1, 2, 7):
            sums = np.zeros(4)
            for rank in range(size):
                own = share_of(lengths, rank, size)
                losses = FileLosses(4)
                losses.begin(files, counts, own)
                batches = [loss.pad([examples[k]], kinds, 0) for k in own]
                for scale in (5.0, 1.0):
                    for k, batch in zip(own, batches, strict=True):
                        losses.add(batch, torch.tensor(nll[k], dtype=torch.float32) * scale)
                sums += losses.sums()
            means, nums = losses.result(sums.tolist())
            of_file = [[k for k in range(5) if files[k] == file] for file in range(4)]
            assert nums == tuple(sum(int(counts[k]) for k in part) for part in of_file)
            for part, mean in zip(of_file, means, strict=True):
                terms = np.concatenate([np.zeros(0), *(nll[k] for k in part)])
                assert mean == (pytest.approx(terms.mean(), rel=1e-6) if len(terms) else None)
