"""Sizes of folders and files, unique names of modules, and a layer for every package."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import convo_cli

PACKAGE = Path(convo_cli.__file__).parent
MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")
)
SCHEMA = PACKAGE / "config" / "schema.py"


def name(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()


def test_a_folder_has_at_most_11_modules():
    num_modules = Counter(name(path.parent) for path in MODULES)
    assert {folder: num for folder, num in num_modules.items() if num > 11} == {}


def test_a_file_has_at_most_250_lines():
    num_lines = {
        name(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in MODULES
        if path != SCHEMA
    }
    assert {path: num for path, num in num_lines.items() if num > 250} == {}


def test_no_two_modules_have_one_name():
    """A command may have the name of its package: `convo export` is cli/commands/export.py."""
    others = [path.stem for path in MODULES if path.parent != PACKAGE / "cli" / "commands"]
    assert [stem for stem, count in Counter(others).items() if count > 1] == []


def test_every_package_is_in_a_layer():
    contracts = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    entries = [path for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"]
    top = {path.stem for path in entries if not path.name.startswith("__")}
    layers = contracts.split("layers = [")[1].split("]")[0]
    assert set(re.findall(r"convo_cli\.(\w+)", layers)) == top
