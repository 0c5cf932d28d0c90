from __future__ import annotations

import re
from pathlib import Path

from convo_cli.config.keys import config_keys
from convo_cli.config.reference import config_reference

REFERENCE = Path(__file__).parents[2] / "docs" / "config.md"


def test_the_reference_is_current() -> None:
    written = REFERENCE.read_text(encoding="utf-8")
    assert written == config_reference(), "run: make docs"


def test_every_key_has_its_row_and_every_section_its_heading() -> None:
    written = REFERENCE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_.]+)` \|", written, flags=re.MULTILINE)
    headings = re.findall(r"^## `([a-z_.]+)`$", written, flags=re.MULTILINE)
    keys = config_keys().values()
    assert sorted(rows) == sorted(key.path for key in keys if not key.is_section), "run: make docs"
    assert headings == [key.path for key in keys if key.is_section], "run: make docs"


def test_every_row_has_as_many_cells_as_its_head_and_no_html() -> None:
    rows = [
        line for line in REFERENCE.read_text(encoding="utf-8").splitlines() if line.startswith("|")
    ]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    assert [row for row in rows if re.search(r"(?<!\\)<\w", row)] == []
