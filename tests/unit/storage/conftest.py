from __future__ import annotations

from pathlib import Path

import pytest

from convo_cli.storage.atomic import publish_directory


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A sealed directory with two files."""

    def fill(folder: Path) -> None:
        (folder / "weights").write_text("0123456789")
        (folder / "state").write_text("{}")

    path = tmp_path / "step-1"
    publish_directory(path, fill)
    return path
