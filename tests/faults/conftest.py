"""The compiled fault layer, the process that forks commands, and undisturbed runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from convo_cli.runs.directory import RunDirectory
from tests.faults.harness import (
    RUN,
    STEPS,
    Outcome,
    Zygote,
    copy_of,
    fault,
    operations,
    outcome,
    prepare,
)

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled fault layer."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the fault layer needs a C compiler named cc")
    library = tmp_path_factory.mktemp("layer") / "layer.so"
    source = Path(__file__).with_name("layer.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="session")
def convo(layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Runs commands under the fault layer."""
    zygote = Zygote(layer, tmp_path_factory.mktemp("zygote"))
    yield zygote
    zygote.close()


@pytest.fixture(scope="session")
def fresh(convo: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared data and no run yet. Copy it."""
    folder = prepare(tmp_path_factory.mktemp("fresh") / "work")
    assert convo(folder, "train", "config.yaml", "-q").code == 0
    shutil.rmtree(folder / RUN)
    return folder


@pytest.fixture(scope="session")
def finished(convo: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an undisturbed run. Copy it."""
    folder = prepare(tmp_path_factory.mktemp("finished") / "work")
    ended = convo(folder, "train", "config.yaml", "-q")
    assert (ended.code, ended.out, ended.err) == (0, f"{RUN}\n", "")
    return folder


@pytest.fixture(scope="session")
def expected(finished: Path) -> Outcome:
    """The outcome that every run must have, whatever happens during it."""
    return outcome(finished / RUN)


@pytest.fixture(scope="session")
def half(convo: Zygote, fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed one step before its end; all of its checkpoints are whole."""
    whole = copy_of(fresh, tmp_path_factory.mktemp("half") / "whole")
    assert convo(whole, "train", "config.yaml", "-q", env=fault(whole / "runs")).code == 0
    at = next(one for one in operations(whole / "runs") if f".tmp-step-{STEPS:08}" in one.path)
    folder = copy_of(fresh, whole.with_name("work"))
    convo(folder, "train", "config.yaml", "-q", env=fault(folder / "runs", "kill", at.number))
    shutil.rmtree(whole)
    assert RunDirectory(folder / RUN).checkpoint_steps()[-1] == STEPS - 1
    return folder
