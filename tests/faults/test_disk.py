"""A full, broken or read-only disk, or too little memory, is named, and nothing saved is lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from convo_cli.runs.directory import RunDirectory
from convo_cli.storage.sealed import verify_directory
from tests.commands import EXECUTABLE, environment
from tests.faults.harness import (
    RUN,
    Ended,
    Outcome,
    Zygote,
    assert_refused,
    copy_of,
    fault,
    finish,
    operations,
    outcome,
    report_on,
    sample,
)

DISK = 7
FULL = {"ENOSPC": errno.ENOSPC, "EDQUOT": errno.EDQUOT, "EIO": errno.EIO, "EROFS": errno.EROFS}


def check(convo: Zygote, folder: Path, ended: Ended, number: int, expected: Outcome) -> None:
    """Assert exit 7 with the system's reason, or success; a resume then ends the same."""
    assert "Traceback" not in ended.err, ended
    if ended.code != 0:
        assert_refused(ended, DISK)
        assert os.strerror(number) in ended.err, ended
        assert str(RUN).split("/")[0] in ended.err, "the path is named"
    if (folder / RUN).exists():
        run = RunDirectory(folder / RUN)
        for step in run.checkpoint_steps():
            verify_directory(run.checkpoint(step))
    finished = finish(convo, folder)
    assert finished.code == 0, finished
    assert outcome(folder / RUN) == expected


def fail_at_each(convo, base, expected, tmp_path, arguments, action, number, choose):
    whole = copy_of(base, tmp_path / "whole")
    assert convo(whole, *arguments, env=fault(whole / "runs")).code == 0
    chosen = choose(operations(whole / "runs"))
    failures: dict[str, str] = {}
    num_refused = 0
    for operation in chosen:
        folder = copy_of(base, tmp_path / "work")
        try:
            ended = convo(
                folder,
                *arguments,
                env=fault(folder / "runs", action, operation.number, number=number),
            )
            num_refused += ended.code == DISK
            check(convo, folder, ended, number, expected)
        except Exception as error:  # noqa: BLE001 - all are reported together
            path = operation.path.removeprefix(str(whole))
            failures[f"{operation.number} {operation.kind} {path}"] = repr(error)
        shutil.rmtree(folder)
    report_on(failures, len(chosen))
    assert num_refused > len(chosen) / 2


def case(name: str, num: int | None, *, slow: bool = True) -> object:
    choose = list if num is None else lambda found: sample(found, num)
    where = "every operation" if num is None else f"{num} operations"
    return pytest.param(
        name, choose, id=f"{name} at {where}", marks=[pytest.mark.slow] if slow else []
    )


@pytest.mark.parametrize(
    ("name", "choose"),
    [
        case("ENOSPC", 1, slow=False),
        case("ENOSPC", None),
        case("EDQUOT", 40),
        case("EIO", 40),
        case("EROFS", 40),
    ],
)
def test_a_disk_that_fails_from_an_operation_on_is_named_and_resume_works_after_that(
    convo, fresh, expected, tmp_path, name, choose
):
    train = ["train", "config.yaml", "-q"]
    fail_at_each(convo, fresh, expected, tmp_path, train, "fail-on", FULL[name], choose)


@pytest.mark.parametrize(("name", "choose"), [case("EIO", 1, slow=False), case("EIO", None)])
def test_one_operation_that_fails_once_is_never_passed_over(
    convo, fresh, expected, tmp_path, name, choose
):
    """A failed fsync is not repeated: the next one would succeed, although data was lost."""
    train = ["train", "config.yaml", "-q"]
    fail_at_each(convo, fresh, expected, tmp_path, train, "fail", FULL[name], choose)


@pytest.mark.parametrize(("name", "choose"), [case("EIO", 1, slow=False), case("EIO", None)])
def test_an_operation_of_a_resume_that_fails_is_never_passed_over(
    convo, half, expected, tmp_path, name, choose
):
    fail_at_each(convo, half, expected, tmp_path, ["resume", RUN, "-q"], "fail", FULL[name], choose)


def test_a_limit_on_the_size_of_files_is_named(convo, fresh, expected, tmp_path):
    folder = copy_of(fresh, tmp_path / "work")
    ended = convo(folder, "train", "config.yaml", "-q", limits={"RLIMIT_FSIZE": 100_000})
    assert_refused(ended, DISK)
    assert "File too large" in ended.err
    assert finish(convo, folder).code == 0
    assert outcome(folder / RUN) == expected


@pytest.mark.parametrize(
    "megabytes", [200, *(pytest.param(one, marks=pytest.mark.slow) for one in (20, 400, 600))]
)
def test_too_little_memory_is_named(convo, fresh, tmp_path, megabytes):
    """Depending on the limit, memory runs out in the model, the backward pass or the optimizer."""
    folder = copy_of(fresh, tmp_path / "work")
    config = folder / "config.yaml"
    config.write_text(
        config.read_text(encoding="utf-8").replace("width: 32", "width: 1024"), encoding="utf-8"
    )
    ended = convo(folder, "train", "config.yaml", "-q", limits={"RLIMIT_AS": megabytes * 1_000_000})
    assert_refused(ended, 2, 7)
    assert "memory" in ended.err.lower()


def in_namespace(folder: Path, *script: str) -> str:
    """Run shell lines in their own mount namespace, which ends with them."""
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0:
        pytest.skip("mounting a file system needs root and unshare")
    if subprocess.run(
        [unshare, "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    convo = f'convo() {{ "{EXECUTABLE}" "$@" 2>&1; echo "exit $?"; }}'
    done = subprocess.run(
        [unshare, "-m", "sh", "-c", "\n".join((convo, *script))],
        cwd=folder, env=environment(OMP_NUM_THREADS="1"), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_full_file_system_is_named_and_resume_works_once_there_is_space(
    fresh, expected, tmp_path
):
    folder = copy_of(fresh, tmp_path / "work")
    said = in_namespace(
        folder,
        "mv runs kept && mkdir runs && mount -t tmpfs -o size=1500k none runs && cp -r kept/. runs",
        "convo train config.yaml -q",
        "ls runs/tiny/checkpoints",
        "mount -o remount,size=64m runs",
        f"convo resume {RUN} -q",
        "cp -r runs/tiny kept/tiny",
    )
    assert "Traceback" not in said
    assert "exit 7\n" in said, said
    assert "No space left" in said or "free" in said, said
    assert said.endswith(f"{RUN}\nexit 0\n"), said
    assert outcome(folder / "kept/tiny") == expected


@pytest.mark.slow
def test_a_read_only_file_system_is_named_and_nothing_is_touched(finished, expected, tmp_path):
    folder = copy_of(finished, tmp_path / "work")
    said = in_namespace(
        folder,
        "mount --bind runs runs && mount -o remount,bind,ro runs",
        f"convo resume {RUN} -q --set training.max_steps=5",
        "convo train config.yaml -q --set name=other",
        f"convo export {RUN} runs/out -q",
        f"convo evaluate {RUN} valid.jsonl -q",
    )
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if line.startswith("exit")] == [
        "exit 7",
        "exit 7",
        "exit 7",
        "exit 0",
    ]
    assert outcome(folder / RUN) == expected
