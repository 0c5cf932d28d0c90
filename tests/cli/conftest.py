"""One tiny trained run for all tests of commands, copied for those that change something."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.commands import Result, make_workplace, run_here

Convo = Callable[..., Result]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, data, a finished run in runs/tiny and its export in exports/tiny.
    Leave it as it is.
    """
    return make_trained(tmp_path_factory.mktemp("trained"))


def make_trained(folder: Path, *options: str) -> Path:
    """Train and export a run in a folder, with these options."""
    make_workplace(folder)
    assert run_here(folder, "train", "config.yaml", "-q", *options) == Result(0, "runs/tiny\n", "")
    assert run_here(folder, "export", "runs/tiny", "exports/tiny", "-q") == Result(
        0, "exports/tiny\n", ""
    )
    return folder


@pytest.fixture
def work(trained: Path, tmp_path: Path) -> Path:
    """A copy of that folder, free to change; its run uses the copied data."""
    folder = tmp_path / "work"
    shutil.copytree(trained, folder)
    config = folder / "runs/tiny/config.yaml"
    config.write_text(
        config.read_text(encoding="utf-8").replace(str(trained), str(folder)), encoding="utf-8"
    )
    return folder


@pytest.fixture
def convo(work: Path) -> Convo:
    """Runs a command in that copy."""
    return partial(run_here, work)


@pytest.fixture
def colour_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process a terminal with colours, and an empty state folder of the user."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "COLUMNS", "VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
