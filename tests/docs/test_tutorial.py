"""docs/tutorial.md: every file, command and program in it works, and shows what the page shows."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.commands import run_here, settings
from tests.docs.pages import Block, blocks, missing

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = list(blocks(PAGE))
SMALL = settings(
    "training.max_steps=4", "evaluation.every_steps=2", "model.scratch.layers=1",
    "model.scratch.width=32", "model.scratch.heads=2",
)  # fmt: skip
FAILS = ("broken.jsonl",)
"""Words of the commands that the page shows as failing."""


def convo_lines(block: Block) -> list[list[str]]:
    """The words of each line that runs convo."""
    lines = block.text.replace("\\\n", " ").splitlines()
    words = (shlex.split(line, comments=True) for line in lines)
    return [line for line in words if "convo" in line]


def test_every_file_and_command_works_and_shows_what_the_page_shows(tmp_path, monkeypatch):
    """The commands are run in order with fewer steps and a smaller model."""
    monkeypatch.chdir(tmp_path)
    output = ""
    for block in BLOCKS:
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.kind == "sh":
            output = "".join(shown(tmp_path, words) for words in convo_lines(block))
        elif block.kind == "console":
            assert missing(block.text, output) == [], output
        elif block.kind == "python":
            exec(compile(block.text, "tutorial.md", "exec"), {})


def shown(folder: Path, words: list[str]) -> str:
    """Run one command line, a pipe from printf included, and return its output."""
    at = words.index("convo")
    stdin = words[at - 2].replace("\\n", "\n").encode() if "|" in words[:at] else b""
    arguments = words[at + 1 :]
    if arguments[:2] == ["train", "config.yaml"]:
        arguments += SMALL
    if arguments[0] == "resume" and "--set" in arguments:
        arguments = [*arguments[:2], *settings("training.max_steps=6")]
    result = run_here(folder, *arguments, stdin=stdin)
    is_shown_to_fail = any(word in FAILS for word in arguments)
    assert (result.code != 0) == is_shown_to_fail, result.err
    return result.out + result.err
