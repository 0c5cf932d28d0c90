"""No setting validates and does nothing: each one is read by code outside the config room."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from convo_cli.config.keys import config_keys

PACKAGE = Path(__file__).resolve().parents[2] / "convo_cli"
SOURCE = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "config"
)
KEYS = [path for path, key in config_keys().items() if not key.is_section]


@pytest.mark.parametrize("path", KEYS)
def test_the_key_is_read_outside_the_config_room(path):
    name = path.rsplit(".", 1)[-1]
    assert re.search(rf"\.{name}\b|\"{name}\"", SOURCE), f"{path} is never read"
