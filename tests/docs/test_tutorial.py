"""docs/tutorial.md: every file, command and program in it works, and shows what the page shows."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.commands import run_here, settings
from tests.docs.pages import Block, blocks, missing

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = list(blocks(PAGE))
SMALL = settings(
    "training.max_steps=4", "evaluation.every_steps=2", "model.scratch.layers=1",
    "model.scratch.width=32", "model.scratch.heads=2",
)  # fmt: skip
REFUSED = "# refused"
"""Comment behind a command that fails."""


def convo_lines(block: Block) -> list[str]:
    """The lines of a block that run convo."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in lines if "convo" in shlex.split(line, comments=True)]


def test_every_command_works_and_shows_what_the_page_shows(tmp_path, monkeypatch):
    """With fewer steps and a smaller model."""
    monkeypatch.chdir(tmp_path)
    walk(tmp_path, {"train": SMALL, "resume": settings("training.max_steps=6")})


@pytest.mark.slow
def test_every_command_works_as_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    walk(tmp_path, {})


def test_a_line_that_the_output_lacks_is_found():
    output = "step 3/9  loss 1.25  12.5k tokens/s\nsaved step 3\n"
    assert missing("step 5/7  loss 2.5  80 tokens/s\n…\n", output) == []
    assert missing("saved step 4 of 9\n", output) == ["saved step 4 of 9"]


def walk(folder: Path, changes: Mapping[str, list[str]]) -> None:
    """Write the files of the page and run its commands and programs in order."""
    output = ""
    for block in BLOCKS:
        if block.file:
            Path(folder, block.file).write_text(block.text, encoding="utf-8")
        elif block.kind == "sh":
            output = "".join(shown(folder, line, changes) for line in convo_lines(block))
        elif block.kind == "console":
            assert missing(block.text, output) == [], output
        elif block.kind == "python":
            exec(compile(block.text, "tutorial.md", "exec"), {})


def shown(folder: Path, line: str, changes: Mapping[str, list[str]]) -> str:
    """Run one command line, a pipe from printf included, and return its output.

    ``changes`` are settings for the runs from scratch, by command.
    """
    words = shlex.split(line, comments=True)
    at = words.index("convo")
    stdin = words[at - 2].replace("\\n", "\n").encode() if "|" in words[:at] else b""
    arguments = words[at + 1 :]
    if arguments[1] in ("config.yaml", "runs/demo"):
        arguments += changes.get(arguments[0], [])
    result = run_here(folder, *arguments, stdin=stdin)
    assert (result.code != 0) == line.endswith(REFUSED), result.err
    return result.out + result.err
