"""README, CHANGELOG and the docs are true: commands, options, data shapes, the code tree."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from convo_cli.cli.app import app
from convo_cli.config.schema import DataConfig
from convo_cli.data.reader import read_dialogues

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
COMMANDS = {command.name for command in app.registered_commands}


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def _convo_lines() -> list[tuple[str, str]]:
    lines = [
        (page.name, line)
        for page in PAGES
        for block in _blocks(page.read_text("utf-8"), "sh")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    quoted = [
        (page.name, code)
        for page in PAGES
        for code in re.findall(r"`(convo [^`…]*)`", page.read_text("utf-8"))
    ]
    return [(page, line) for page, line in lines + quoted if line.startswith("convo ")]


def test_every_command_is_in_the_readme_and_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"convo {command}" in README
        assert f"convo {command}" in changelog
    assert "## [Unreleased]" in changelog


@pytest.mark.parametrize(("page", "line"), _convo_lines(), ids=lambda value: value[:60])
def test_every_command_line_in_the_docs_is_one_that_convo_understands(page, line):
    words = shlex.split(line, comments=True)
    words = words[
        1 : next((k for k, word in enumerate(words) if word in (">", "|", "<")), len(words))
    ]
    if words in ([], ["--help"], ["COMMAND", "--help"]):
        return
    group = typer.main.get_command(app)
    assert words[0] in group.commands, f"{page}: {line}"
    if len(words) > 1:
        group.commands[words[0]].make_context(words[0], words[1:])


def test_every_data_shape_in_the_readme_is_read(tmp_path):
    (block,) = _blocks(README, "json")
    path = tmp_path / "shapes.jsonl"
    path.write_text(block, encoding="utf-8")
    dialogues = list(read_dialogues([str(path)], DataConfig(train=(str(path),))))
    assert len(dialogues) == len(block.splitlines())
    assert all(json.loads(line) for line in block.splitlines())


def test_the_tree_in_the_readme_is_the_tree():
    block = README.split("```\nconvo_cli/\n")[1].split("```")[0]
    named = {
        name
        for line in block.splitlines()
        for name in re.findall(r"[a-z_]+(?:/|\.py)(?= )", line[:24])
    }
    actual = {
        f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / "convo_cli").iterdir()
    }
    assert named == actual - {"__pycache__/", "__init__.py", "__main__.py", "py.typed"}


def test_the_readmes_two_commands_are_verbs_of_the_bootstrap_script():
    verbs = re.findall(r"^python3 bootstrap\.py (\w+)", README, flags=re.MULTILINE)
    assert verbs[:2] == ["demo", "test"]
    source = (ROOT / "bootstrap.py").read_text(encoding="utf-8")
    assert all(f'"{verb}":' in source for verb in verbs)
    assert all(
        f"bootstrap.py {verb}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
        for verb in ("demo", "test")
    )
