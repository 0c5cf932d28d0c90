"""No call in the source that opens files of a run directory follows links."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import convo_cli

PACKAGE = Path(convo_cli.__file__).parent
ELSEWHERE = {"foreign_files", "other_models", "model_folder", "git", "files", "folder", "access"}
"""Modules that read model folders or a repository, where links are allowed, and those that open
safely for all.
"""
MODULES = [
    *sorted(
        path
        for room in ("runs", "report", "storage", "training")
        for path in (PACKAGE / room).rglob("*.py")
        if path.stem not in ELSEWHERE
    ),
    *(PACKAGE / f"cli/commands/{name}.py" for name in ("evaluate", "resume")),
]
"""All that read or write in a run directory."""
FOLLOWING = {
    "read_bytes", "read_text", "write_bytes", "write_text", "touch", "copyfile", "copy", "copy2",
    "copytree", "move", "rmtree", "chmod", "fromfile", "load_config",
}  # fmt: skip
ALLOWED = {
    ("run_info", "load_config"),  # with an opener
    ("data_files", "open"),  # a data file, which the user names
    ("tensorboard", "open"),  # of a Folder
    ("atomic", "open"),  # of a Folder
    ("sealed", "open"),  # of a Folder
    ("sealed", "chmod"),  # of an open file
    ("build", "move"),  # of a model to its device
    ("shards", "open"),  # of a Folder
}


def following_calls(source: str) -> set[str]:
    """Names of calls that open a file by its name and follow a link there."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = (
                node.func.attr
                if isinstance(node.func, ast.Attribute)
                else getattr(node.func, "id", "")
            )
            has_opener = any(keyword.arg == "opener" for keyword in node.keywords)
            if name in FOLLOWING or (name == "open" and not has_opener):
                found.add(name)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_run_directory_is_opened_without_following_links(path):
    calls = {(path.stem, name) for name in following_calls(path.read_text(encoding="utf-8"))}
    assert calls <= ALLOWED


def test_every_exception_is_needed():
    calls = {
        (path.stem, name)
        for path in MODULES
        for name in following_calls(path.read_text(encoding="utf-8"))
    }
    assert calls >= ALLOWED


@pytest.mark.parametrize(
    "call", ["open(p)", "p.open('w')", "p.read_bytes()", "shutil.copyfile(a, b)", "os.open(p, 0)"]
)
def test_a_call_that_follows_links_is_found(call):
    assert following_calls(call)
    assert not following_calls("open(p, opener=only_regular)")
