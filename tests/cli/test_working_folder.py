"""Nothing in the working folder is run: no program, module, hook or filter of its repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import EXECUTABLE, PICTURES, environment, make_workplace, settings

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    *(
        "torch",
        "numpy",
        "jsonlines",
        "msgspec",
        "typer",
        "rich",
        "pydantic",
        "transformers",
        "tokenizers",
        "ftfy",
    ),
    *(
        "matplotlib",
        "tensorboardX",
        "jinja2",
        "_ops",
        "convo_plugin",
        "nltk",
        "sacrebleu",
        "filelock",
        "zstandard",
    ),
)
PROGRAMS = ("git", "uname", "fc-list", "gcc", "cc", "c++", "ldconfig", "latex", "nvidia-smi", "sh")


@pytest.fixture
def hostile(tmp_path):
    """A foreign working folder; each program and module in it writes a file in ``ran`` when run."""
    folder = tmp_path / "work"
    folder.mkdir()
    make_workplace(folder)
    ran = tmp_path / "ran"
    ran.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(ran / name)!r}, 'w')\n")
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f"#!/bin/sh\n: > '{ran}/{name}'\n")
        program.chmod(0o755)
    (folder / "matplotlibrc").write_text("text.usetex: True\nbackend: module://convo_plugin\n")
    return folder


def make_repository(folder, ran):
    """A repository in which `git status` runs five things."""

    def git(*arguments):
        identity = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        subprocess.run(
            ["git", *identity, *arguments], cwd=folder, env=env, check=True, capture_output=True
        )

    git("init")
    (folder / ".gitattributes").write_text("*.jsonl filter=evil\n")
    git("add", "train.jsonl", ".gitattributes")
    git("commit", "-m", "first")
    for key in (
        "core.fsmonitor",
        "filter.evil.clean",
        "filter.evil.process",
        "core.sshCommand",
        "core.pager",
    ):
        git("config", key, f": > '{ran}/{key}'; cat")
    for command in ("status", "rev-parse", "log"):
        git("config", f"alias.{command}", f"!: > '{ran}/alias'")
    git("config", "core.hooksPath", "hooks")
    (folder / "hooks").mkdir()
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        (folder / "hooks" / hook).write_text(f"#!/bin/sh\n: > '{ran}/{hook}'\n")
        (folder / "hooks" / hook).chmod(0o755)
    later = (folder / "train.jsonl").stat().st_mtime + 10
    os.utime(folder / "train.jsonl", (later, later))  # so that git asks the filter what it is


@pytest.mark.skipif(
    os.name != "posix" or shutil.which("git") is None,
    reason="scripts, and git to make a repository",
)
def test_git_status_would_run_what_the_repository_names(hostile, tmp_path):
    make_repository(hostile, tmp_path / "ran")
    subprocess.run(["git", "status", "--porcelain"], cwd=hostile, capture_output=True, check=False)
    assert {path.name for path in (tmp_path / "ran").iterdir()} >= {
        "core.fsmonitor",
        "filter.evil.process",
    }


@pytest.mark.skipif(
    os.name != "posix" or shutil.which("git") is None,
    reason="scripts, and git to make a repository",
)
@pytest.mark.parametrize(
    "how",
    [
        "module, empty part of PYTHONPATH",
        *(
            pytest.param(how, marks=pytest.mark.slow)
            for how in (
                "executable",
                "module",
                "empty part of PYTHONPATH",
                "working folder on PATH",
            )
        ),
    ],
)
def test_training_in_a_hostile_folder_runs_nothing_of_it(hostile, tmp_path, how):
    make_repository(hostile, tmp_path / "ran")
    env = environment(PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1")
    program = [str(EXECUTABLE)]
    if "module" in how:
        program = [sys.executable, "-m", "convo_cli"]
    if "empty part of PYTHONPATH" in how:
        env["PYTHONPATH"] = f"{os.pathsep}{ROOT}"
    if how == "working folder on PATH":
        env["PATH"] = f"{env['PATH']}{os.pathsep}."
    command = [
        "train",
        "config.yaml",
        "-q",
        *settings("training.max_steps=2", "evaluation.every_steps=2"),
        *PICTURES,
    ]
    done = subprocess.run(
        [*program, *command], cwd=hostile, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "runs/tiny\n", "")
    assert list((tmp_path / "ran").iterdir()) == []
    assert list((hostile / "runs/tiny/plots").iterdir())
