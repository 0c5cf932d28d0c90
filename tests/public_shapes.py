"""Shapes of public corpora and tools, and what convo makes of a file of each.

`fixtures/public_shapes.txt` holds the files, with texts of our own: a heading with the name of the
corpus, the name of the file and the outcome; the lines of the file; after "> " each dialogue.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from convo_cli.config.schema import ColumnsConfig, DataConfig, SpeakersConfig
from convo_cli.data.checks.validate import validate_files
from convo_cli.data.reader import read_dialogues
from convo_cli.data.roles.proposal import Proposal
from convo_cli.errors import DataError
from tests.commands import run_here

FIXTURE = Path(__file__).parent / "fixtures" / "public_shapes.txt"
_COMMAND = re.compile(r": ((?:jq|convo) .*)")


class PublicShape(NamedTuple):
    """A file of a public shape."""

    name: str
    file: str
    outcome: str
    """read, converted, mapped or refused, or several of them in order."""
    text: str
    dialogues: list[str]


def public_shapes() -> list[PublicShape]:
    """Return the shapes of the fixture."""
    shapes = []
    for part in FIXTURE.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, *lines = part.splitlines()
        name, file, outcome = heading.split(" | ")
        text = "".join(f"{line}\n" for line in lines if not line.startswith("> "))
        dialogues = [line[2:] for line in lines if line.startswith("> ")]
        shapes.append(PublicShape(name, file, outcome, text, dialogues))
    return shapes


def outcome_of(path: Path) -> tuple[str, list[str]]:
    """Return what becomes of a file if the printed commands are followed, and its dialogues."""
    config = DataConfig(train=("unused",))
    report = validate_files([str(path)], config).files[0]
    if not report.num_errors:
        return "read", _dialogues(path, config)
    if report.proposal is not None:
        try:
            return "mapped", _dialogues(path, _mapped(report.proposal))
        except DataError:
            return "refused", []
    for group in report.problem_groups:
        command = _COMMAND.search(group.hint)
        if command is not None:
            words = shlex.split(command[1])
            out = path.with_name(words[-1])
            if _convert(path.parent, words, out):
                outcome, dialogues = outcome_of(out)
                return f"converted, {outcome}".removesuffix(", read"), dialogues
    return "refused", []


def _convert(folder: Path, words: list[str], out: Path) -> bool:
    if words[0] == "convo":
        return run_here(folder, *words[1:]).code == 0
    jq = pytest.importorskip("jq", reason="the package jq is not installed")
    flags, program, *files = words[1:-2]
    if not all((folder / file).exists() for file in files):
        return False
    text = "".join((folder / file).read_text(encoding="utf-8") for file in files)
    values = jq.compile(program).input_text(text, slurp="s" in flags).all()
    out.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return True


def _mapped(proposal: Proposal) -> DataConfig:
    data = YAML(typ="safe").load(proposal.yaml)["data"]
    speakers: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in data.get("speakers", {}).items()
    }
    columns = ColumnsConfig(**data.get("columns", {}))
    return DataConfig(train=("unused",), columns=columns, speakers=SpeakersConfig(**speakers))


def _dialogues(path: Path, config: DataConfig) -> list[str]:
    return [
        " | ".join(
            f"{turn.role}{'' if turn.is_trained else ' (context)'}: {json.dumps(turn.text)[1:-1]}"
            for turn in dialogue.turns
        )
        for dialogue in read_dialogues([str(path)], config)
    ]
