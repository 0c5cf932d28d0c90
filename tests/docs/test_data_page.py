"""docs/data.md has a line for every shape, and convo reads each of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from convo_cli.config.schema import DataConfig
from convo_cli.data.reader import read_dialogues
from convo_cli.data.shapes.items.turn_keys import AUTHOR_KEYS, SPEAKER_KEYS, TEXT_KEYS
from convo_cli.data.shapes.known_keys import REASONING_KEYS, TRAIN_KEYS
from convo_cli.data.shapes.table import SHAPES, SYSTEM_KEYS, shape_of

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
LINES = re.findall(r"^\| ([a-z+, ]+) \| `([\[{].*)` \|$", PAGE, flags=re.MULTILINE)


def test_every_shape_has_a_line() -> None:
    named = {shape for shapes, _ in LINES for shape in shapes.split(", ")}
    assert named == {"list of texts", "list of turns", *SHAPES}


@pytest.mark.parametrize(("shapes", "line"), LINES)
def test_the_line_has_the_first_shape_and_is_read(shapes: str, line: str, tmp_path: Path) -> None:
    assert shape_of(json.loads(line)) == shapes.split(", ")[0]
    path = tmp_path / "data.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    (dialogue,) = read_dialogues([str(path)], DataConfig(train=(str(path),)))
    assert [turn.role for turn in dialogue.turns][-2:] == ["user", "assistant"]


def test_every_key_that_is_read_is_named() -> None:
    optional = {key for shape in SHAPES.values() for key in shape.optional} | {*SYSTEM_KEYS}
    keys = {*SPEAKER_KEYS, *AUTHOR_KEYS, *TEXT_KEYS, *TRAIN_KEYS, *REASONING_KEYS, *optional}
    assert [key for key in sorted(keys) if not re.search(rf'[`"]{key}[`"]', PAGE)] == []
