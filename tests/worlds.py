"""Runs in a world of several processes, for tests: one group of processes trains many runs.

`train_in_world` starts the processes with the environment that a launcher would set; each of them
runs this module.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from convo_cli.config.schema import DataConfig, RunConfig
from convo_cli.events import EvaluationDone, Event, StepDone, ignore
from convo_cli.model.tensor_files import tensor_files
from convo_cli.runs.directory import RunDirectory
from convo_cli.storage.sealed import verify_directory
from convo_cli.world import World

ROOT = Path(__file__).resolve().parent.parent


def train_in_world(
    size: int, runs: Mapping[str, Any], folder: Path, *, seconds: int = 600
) -> dict[str, Any]:
    """Train each config in a world of this size; return the numbers that rank 0 recorded.

    A run is a config; the folder of a run to resume, or {"resume": folder, "training": changes}; a
    list of a model and the files to evaluate it on; or {"train": config, "fault": name} with a name
    of `FAULTS`, which records the end of each process. The key "disturbed" has the errors that each
    process caught in `disturb`.
    """
    folder.mkdir()
    task = folder / "task.json"
    task.write_text(
        json.dumps(
            {
                name: run.model_dump(mode="json") if isinstance(run, RunConfig) else run
                for name, run in runs.items()
            },
            default=_as_json,
        )
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2 * size)
        processes = [
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.worlds", task],
                cwd=ROOT,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
                    "RANK": str(rank),
                    "WORLD_SIZE": str(size),
                    "LOCAL_RANK": str(rank),
                    "LOCAL_WORLD_SIZE": str(size),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(listener.getsockname()[1]),
                    "CONVO_STORE_FD": str(listener.fileno()),
                },
                pass_fds=[listener.fileno()],
            )
            for rank in range(size)
        ]
    try:
        assert [process.wait(timeout=seconds) for process in processes] == [0] * size
    finally:
        for process in processes:
            process.kill()
    return json.loads((folder / "seen.json").read_text())


def _as_json(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, RunConfig) else str(value)


def train_alone(config: RunConfig) -> dict[str, Any]:
    """Train a config in this process, and return what `train_in_world` returns."""
    from convo_cli.training.run import start_run

    seen = Seen()
    start_run(config, seen)
    return seen.record


def evaluate(model: str, *files: str, world: World | None = None) -> dict[str, Any]:
    """Evaluate a model as `convo evaluate` does, and return its scores."""
    from convo_cli.cli.views.evaluation.evaluation_view import Evaluated, as_record
    from convo_cli.evaluation.finished.model_scoring import score_model
    from convo_cli.evaluation.finished.open_everywhere import open_everywhere

    world = world or World()
    generator = open_everywhere(model, device="cpu", emit=ignore, which=None, world=world)
    data = DataConfig(train=files)
    scores = score_model(
        generator, data, num_replies=20, max_new_tokens=8, emit=ignore, world=world
    )
    shown = as_record([Evaluated(model, generator.folder, generator.loaded, scores, ())])
    replies = {number: sample.reply for number, sample in scores.replies.items()}
    return json.loads(json.dumps({"shown": shown, "replies": replies}))


def disturb(world: World) -> list[str]:
    """Let one process fail, then stop one while others generate replies; return the errors."""
    from convo_cli.errors import ConvoError, DataError
    from convo_cli.evaluation.shared_replies import EvaluationStoppedError, SharedReplies

    seen = []

    def fail() -> None:
        if not world.is_first:
            raise DataError(f"no dialogues in {world.rank}", hint="add some")

    try:
        world.agreed(fail)
    except ConvoError as error:
        seen.append(f"{type(error).__name__} {error.message.partition('no ')[2]} {error.hint}")
    shared = SharedReplies(world, is_stopped=lambda: world.rank == world.size - 1)

    def generate() -> dict[int, Any]:
        while world.rank % 2 == 0:  # until another process's stop request ends it
            shared.raise_if_stopped()
        return {}

    try:
        shared.collect(generate)
    except EvaluationStoppedError:
        seen.append("stopped")
    return seen


def _no_loss(run: RunDirectory, nll: torch.Tensor) -> torch.Tensor:
    return nll * math.nan


def _no_gradient(run: RunDirectory, nll: torch.Tensor) -> torch.Tensor:
    nll.register_hook(lambda gradient: gradient * math.inf)
    return nll


def _stop(run: RunDirectory, nll: torch.Tensor) -> torch.Tensor:
    run.stop.touch()
    return nll


FAULTS = {"loss": _no_loss, "gradient": _no_gradient, "stop file": _stop, "none": None}
"""Faults in the third micro-batch of the last process, and in no other process."""


def train_with_fault(config: RunConfig, fault: str, world: World) -> list[Any]:
    """Return how this process ended: at which step, why, and with which exit code."""
    from convo_cli.errors import ConvoError
    from convo_cli.training.job import RunJob
    from convo_cli.training.run import start_run

    compute, change = RunJob.nll_sum, FAULTS[fault]
    num_passes = itertools.count(1)

    def nll_sum(job: RunJob, *arguments: Any) -> torch.Tensor:
        nll = compute(job, *arguments)
        return change(job._run, nll) if change and next(num_passes) == 3 else nll

    with pytest.MonkeyPatch.context() as patched:
        if world.rank == world.size - 1:
            patched.setattr(RunJob, "nll_sum", nll_sum)
        try:
            result = start_run(config, ignore, world)
        except ConvoError as error:
            return [error.message.partition(";")[0], error.exit_code]
    return [f"{result.step}: {result.reason}", 0]


class Seen:
    """A reporter that keeps the numbers of steps and evaluations."""

    def __init__(self) -> None:
        self.record: dict[str, Any] = {"steps": [], "by_file": [], "evaluations": []}

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self.record["steps"].append(
                [event.loss, event.grad_norm, event.num_tokens, event.num_targets, event.flops]
            )
            self.record["by_file"].append([event.loss_by_file, event.num_targets_by_file])
        if isinstance(event, EvaluationDone):
            replies = [sample.reply for sample in event.samples]
            self.record["evaluations"].append([event.loss, dict(event.metrics), replies])


def require_equal_steps(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Require equal losses, gradient norms and counts of two records of the same steps."""
    assert len(one["steps"]) == len(other["steps"]) > 0
    for (loss, norm, *counts, flops), (loss_2, norm_2, *counts_2, flops_2) in zip(
        one["steps"], other["steps"], strict=True
    ):
        assert counts == counts_2
        assert math.isclose(loss, loss_2, rel_tol=1e-5)
        assert math.isclose(norm, norm_2, rel_tol=1e-5)
        assert math.isclose(flops, flops_2, rel_tol=0.05)
    for (losses, nums), (losses_2, nums_2) in zip(one["by_file"], other["by_file"], strict=True):
        assert list(nums) == nums_2
        assert losses_2 == [loss and pytest.approx(loss, rel=1e-5) for loss in losses]


def require_equal_scores(one: dict[str, Any], other: dict[str, Any], *, num_replies: int) -> None:
    """Require equal losses, metrics and replies in the evaluations of two records."""
    assert len(one["evaluations"]) > 0
    for (loss, metrics, replies), (loss_2, metrics_2, replies_2) in zip(
        one["evaluations"], other["evaluations"], strict=True
    ):
        assert math.isclose(loss, loss_2, rel_tol=1e-5)
        assert len(replies) == num_replies
        assert replies == replies_2
        assert metrics == pytest.approx(metrics_2)


def weights(run: Path, step: int = 8) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint, after its hashes are verified."""
    path = RunDirectory(run).checkpoint(step)
    verify_directory(path)
    return {name: t for file in tensor_files(path, "model") for name, t in load_file(file).items()}


def require_equal_weights(one: Path, other: Path) -> None:
    """Require that the last weights of two runs differ by no more than rounding."""
    ours, others = weights(one), weights(other)
    assert ours.keys() == others.keys()
    for name, tensor in ours.items():
        difference = torch.linalg.vector_norm(tensor - others[name])
        assert difference <= 1e-4 * torch.linalg.vector_norm(tensor), name


def main() -> None:
    """Take part in every run of a task; rank 0 writes what it saw beside the task."""
    from convo_cli.runs.provenance.run_info import read_config
    from convo_cli.training.distributed.rank_process import world_of
    from convo_cli.training.run import resume_run, start_run

    task = Path(sys.argv[1])
    seen: dict[str, Any] = {}
    with world_of("cpu") as world:
        for name, run in json.loads(task.read_text()).items():
            reporter = Seen()
            emit = reporter if world.is_first else ignore
            if isinstance(run, list):
                reporter.record = evaluate(*run, world=world)
            elif isinstance(run, dict) and "fault" in run:
                config = RunConfig.model_validate_json(json.dumps(run["train"]))
                ends = world.gather(train_with_fault(config, run["fault"], world))
                reporter.record = {"ends": ends}
            elif isinstance(run, str) or "resume" in run:
                known: dict[str, Any] = {"resume": run, "training": {"max_steps": 8}}
                resumed = known if isinstance(run, str) else run
                folder = Path(resumed["resume"])
                config = read_config(RunDirectory(folder))
                training = config.training.model_copy(update=resumed["training"])
                config = config.model_copy(update={"training": training})
                resume_run(folder, "last", config, emit, world=world)
            else:
                start_run(RunConfig.model_validate_json(json.dumps(run)), emit, world)
            seen[name] = reporter.record
        seen["disturbed"] = world.gather(disturb(world))
    if world.is_first:
        task.with_name("seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
