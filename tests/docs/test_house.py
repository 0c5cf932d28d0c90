"""The house: folders and files that one can take in at a glance, and one name for one thing."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import convo_cli

PACKAGE = Path(convo_cli.__file__).parent
MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")
)
ROOMS = sorted({path.parent for path in MODULES})
SCHEMA = PACKAGE / "config" / "schema.py"


def name(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()


@pytest.mark.parametrize("room", ROOMS, ids=name)
def test_a_folder_has_at_most_11_modules(room):
    assert len([path for path in MODULES if path.parent == room]) <= 11


@pytest.mark.parametrize("path", [path for path in MODULES if path != SCHEMA], ids=name)
def test_a_file_has_at_most_250_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 250


def test_no_two_modules_have_one_name():
    """A command may be called as the room that it opens: `convo export` is
    cli/commands/export.py.
    """
    others = [path.stem for path in MODULES if path.parent != PACKAGE / "cli" / "commands"]
    assert [stem for stem, count in Counter(others).items() if count > 1] == []


def test_every_room_is_in_a_layer():
    contracts = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    entries = [path for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"]
    top = {path.stem for path in entries if not path.name.startswith("__")}
    layers = contracts.split("layers = [")[1].split("]")[0]
    assert set(re.findall(r"convo_cli\.(\w+)", layers)) == top
