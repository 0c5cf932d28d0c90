"""docs/commands.md, docs/problems.md and docs/shapes.md are what `make docs` writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main

from convo_cli.cli.app import app
from convo_cli.data.problem_kinds import KINDS
from tests.docs.command_reference import commands_page
from tests.docs.problem_reference import problems_page
from tests.docs.shapes_reference import shapes_page

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"commands.md": commands_page, "problems.md": problems_page, "shapes.md": shapes_page}


@pytest.mark.parametrize(("name", "make"), PAGES.items(), ids=PAGES)
def test_the_page_is_current(name: str, make: Callable[[], str]) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == make(), "run: make docs"


def test_make_docs_writes_every_generated_page() -> None:
    source = (DOCS.parent / "bootstrap.py").read_text(encoding="utf-8")
    generated = [
        page.name for page in DOCS.glob("*.md") if "by `make docs`" in _joined(page.read_text())
    ]
    assert sorted(generated) == sorted(re.findall(r'"docs/(\w+\.md)"', source))


@pytest.mark.parametrize("name", PAGES)
def test_every_row_has_as_many_cells_as_its_head_and_no_html(name: str) -> None:
    head = 0
    for line in (DOCS / name).read_text(encoding="utf-8").splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        head = cells if not head else head * bool(cells)
        assert cells == head, line
        assert not re.search(r"(?<!\\)<\w", line) or not cells, line


def test_every_command_and_option_has_its_row() -> None:
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    for name, command in typer.main.get_command(app).commands.items():
        section = text.partition(f"## convo {name}\n")[2].partition("\n## ")[0]
        options = {option for param in command.params for option in param.opts}
        named = set(re.findall(r"`(-[-a-z]+)`", section))
        assert {option for option in options if option.startswith("-")} == named
        assert f"\nconvo {name}" in section


def test_every_problem_code_has_its_row() -> None:
    text = (DOCS / "problems.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z0-9-]+)` \|", text, flags=re.MULTILINE) == [
        *(code for code, kind in KINDS.items() if kind.severity == "error"),
        *(code for code, kind in KINDS.items() if kind.severity == "warning"),
    ]


def _joined(text: str) -> str:
    return " ".join(text.split())
