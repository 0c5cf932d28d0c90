"""The files, modules, functions and config keys that the docs and docstrings name exist."""

from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from convo_cli.config.keys import config_keys

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "convo_cli"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
SOURCES = sorted(
    path for top in ("convo_cli", "tests", "benchmarks") for path in (ROOT / top).rglob("*.py")
)
FILES = {path.relative_to(ROOT).as_posix() for path in SOURCES} | {"bootstrap.py"}
PACKAGES = {path.name for path in PACKAGE.iterdir()}
KEYS = set(config_keys())
FOREIGN = {"torch.py", "runpy.py", "sitecustomize.py", "modeling_evil.py"}
"""Files of other programs, which the docs name in attacks."""
FILE_ENDINGS = (".json", ".jsonl", ".safetensors", ".onnx", ".onnx.data", ".bin")
MODULE = re.compile(r"([a-z_]+/)+[a-z_]+(\.\w+)*")
"""A module, by its path in the package, or an attribute of it: package/module.attribute."""
FIELD_PAGES = {"json.md", "run-directory.md"}
"""Pages whose tables begin with JSON fields, which other tests compare with real ones."""
EXAMPLES = ("runs/convo", "runs/demo")
"""Run directories that the docs use as examples; the package `runs` has the same name."""


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`\s]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def text_of(page: Path) -> str:
    """The text of a page, without the names of JSON fields."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^\| `.*?\|", "", text, flags=re.M) if page.name in FIELD_PAGES else text


def missing(name: str) -> bool:
    """Return whether a quoted name looks like a part of convo but does not exist."""
    if "<" in name or name.startswith(EXAMPLES):
        return False
    if name.endswith(".py"):
        return name not in FOREIGN and not any(f"/{file}".endswith(f"/{name}") for file in FILES)
    if name.split(".")[0] in KEYS and re.fullmatch(r"\w+(\.\w+)+", name):
        return name not in KEYS and not name.endswith(FILE_ENDINGS)
    is_ours = MODULE.fullmatch(name) and name.split("/")[0] in PACKAGES
    return bool(is_ours) and not exists("convo_cli." + name.replace("/", "."))


def exists(dotted: str) -> bool:
    """Return whether a dotted name leads to a module or to something in one."""
    try:
        resolve_name(dotted)
    except (ImportError, AttributeError):
        return False
    return True


def test_what_a_page_names_exists():
    assert [
        (page.name, name) for page in PAGES for name in filter(missing, quoted(text_of(page)))
    ] == []


def test_what_a_docstring_names_exists():
    assert [
        (path.relative_to(ROOT), name)
        for path in SOURCES
        for name in quoted(path.read_text(encoding="utf-8"))
        if re.fullmatch(r"convo_cli\.[\w.]+", name) and not exists(name)
    ] == []


@pytest.mark.parametrize(
    "name",
    [
        "training/lop.py",
        "training/loop.trane",
        "data.trian",
        "cli/commands/export.Format",
        "test_nothing.py",
    ],
)
def test_a_name_of_nothing_is_reported(name):
    assert missing(name)


@pytest.mark.parametrize(
    "name", ["training/loop.train", "data.train", "test_named_things.py", "os._exit", "a/b", "data"]
)
def test_a_name_of_something_or_of_another_program_is_not(name):
    assert not missing(name)
