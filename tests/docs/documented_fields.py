"""Comparison of the fields in the tables of a page with the fields of real JSON values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any


def documented(page: str, heading: str) -> list[str]:
    """The names in the first column of the table below a heading."""
    section = re.split(rf"^#+ {re.escape(heading)}$", page, flags=re.MULTILINE)[1]
    body = re.split(r"^#", section, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`.*?) \|", body, flags=re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def require_equal(values: list[Any], names: list[str]) -> None:
    """Require that the values together have exactly these fields.

    Objects below a name are compared only if the page names something in them.
    """
    groups = {name[: dot.start()] for name in names for dot in re.finditer(r"\.", name)}
    written = {field for value in values for field in _fields(value, groups)}
    undocumented, unwritten = written - set(names) - groups, set(names) - written
    assert not undocumented, f"written, but not documented: {sorted(undocumented)}"
    assert not unwritten, f"documented, but not written: {sorted(unwritten)}"


def _fields(value: Any, groups: set[str], above: str = "") -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        for key, inner in item.items():
            name = above + key
            yield name
            if name in groups and isinstance(inner, (dict, list)):
                yield from _fields(inner, groups, f"{name}.")
