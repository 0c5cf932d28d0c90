"""Published checkpoints are whole after a power cut, which loses what was not flushed.

The simulated worst case: the machine stops at a file operation, every name is already on the disk,
and every file has lost what was written after its last fsync.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.event_log import read_metrics
from convo_cli.storage.sealed import verify_directory
from tests.faults.harness import (
    RUN,
    Operation,
    copy_of,
    fault,
    finish,
    operations,
    outcome,
    report_on,
    sample,
)

ASIDE = ".tmp-"
TENSORS = ("model.safetensors", "optimizer.safetensors")
_OF_SAFETENSORS = re.compile(r"/\.tmp\w{6}$")
"""Files of safetensors, which renames them with a system call that the layer does not see."""


def is_published(path: str) -> bool:
    return not any(part.startswith(ASIDE) for part in Path(path).parts)


def flushed_sizes(done: Sequence[Operation]) -> dict[str, int]:
    """Return the size of every file at its last fsync, by its name after these operations."""
    sizes: dict[str, int] = {}
    for operation in done:
        if operation.kind == "fsync":
            sizes[operation.path] = operation.size
        elif operation.kind == "rename":
            for path in list(sizes):
                if path == operation.path or path.startswith(f"{operation.path}/"):
                    sizes[operation.target + path.removeprefix(operation.path)] = sizes.pop(path)
    return sizes


def lose_what_was_not_flushed(folder: Path, done: Sequence[Operation]) -> int:
    """Truncate the files in a folder to what was flushed; return how many lost data."""
    sizes, num_lost = flushed_sizes(done), 0
    for file in folder.rglob("*"):
        kept = sizes.get(str(file), 0)
        if file.is_file() and file.stat().st_size > kept:
            with file.open("r+b") as opened:
                opened.truncate(kept)
            num_lost += 1
    return num_lost


@pytest.mark.parametrize(
    "choose", [lambda found: sample(found, 3), pytest.param(list, marks=pytest.mark.slow)]
)
def test_after_a_power_cut_at_a_file_operation_the_run_ends_the_same(
    convo, fresh, expected, tmp_path, choose
):
    """The log is flushed before a checkpoint is published, so it has at least those steps."""
    whole = copy_of(fresh, tmp_path / "whole")
    assert convo(whole, "train", "config.yaml", "-q", env=fault(whole / "runs")).code == 0
    chosen = choose(operations(whole / "runs"))
    failures: dict[str, str] = {}
    num_lost = 0
    for operation in chosen:
        folder = copy_of(fresh, tmp_path / "work")
        try:
            killed = fault(folder / "runs", "kill", operation.number)
            convo(folder, "train", "config.yaml", "-q", env=killed)
            done = operations(folder / "runs")[:-1]
            if (folder / RUN).exists():
                num_lost += lose_what_was_not_flushed(folder / RUN, done)
                run = RunDirectory(folder / RUN)
                for step in run.checkpoint_steps():
                    verify_directory(run.checkpoint(step))
                steps = (
                    [one["step"] for one in read_metrics(run.metrics) if one["event"] == "step"]
                    if run.metrics.exists()
                    else []
                )
                assert steps[: run.checkpoint_steps()[-1]] == list(
                    range(1, run.checkpoint_steps()[-1] + 1)
                )
            ended = finish(convo, folder)
            assert ended.code == 0, ended
            assert outcome(folder / RUN) == expected
        except Exception as error:  # noqa: BLE001 - all are reported together
            path = operation.path.removeprefix(str(whole))
            failures[f"{operation.number} {operation.kind} {path}"] = repr(error)
        shutil.rmtree(folder)
    assert num_lost > 0, "some data was not flushed"
    report_on(failures, len(chosen))


def test_files_are_flushed_before_they_are_named_and_named_before_older_ones_go(
    convo, fresh, tmp_path
):
    """Write, fsync, rename, fsync of the folder; only then is an older checkpoint removed."""
    folder = copy_of(fresh, tmp_path / "work")
    assert convo(folder, "train", "config.yaml", "-q", env=fault(folder / "runs")).code == 0
    unflushed: set[str] = set()  # files and folders whose last change is not on the disk
    flushed: set[str] = set()
    unnamed: set[str] = set()  # folders in which something was renamed since their last fsync
    num_renames = num_removals = 0
    for operation in operations(folder / "runs"):
        path, above = operation.path, str(Path(operation.path).parent)
        if f"/{RUN}" not in path:
            continue
        match operation.kind:
            case "open" | "mkdir":
                unflushed.add(above)
            case "write" | "truncate" if not _OF_SAFETENSORS.search(path):
                unflushed.add(path)
            case "fsync":
                flushed.add(path)
                unflushed.discard(path)
                unnamed.discard(path)
            case "rename" if is_published(operation.target):
                num_renames += 1
                if Path(path).is_relative_to(folder / RUN / "checkpoints"):
                    assert {f"{path}/{name}" for name in TENSORS} <= flushed
                late = {one for one in unflushed if one == path or one.startswith(f"{path}/")}
                assert not late, f"{operation.target} got its name before {late} was flushed"
                unnamed.add(str(Path(operation.target).parent))
            case "rename" | "unlink" | "rmdir" if is_published(path):
                num_removals += 1
                assert not unnamed, f"{path} went before the names in {unnamed} were flushed"
    assert num_renames >= 5
    assert num_removals >= 1
