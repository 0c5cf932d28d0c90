"""What convo makes of files of public shapes: read, converted, mapped or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.public_shapes import PublicShape, outcome_of, public_shapes


@pytest.mark.parametrize("shape", public_shapes(), ids=lambda shape: shape.name)
def test_a_file_of_a_public_shape_becomes_its_dialogues(tmp_path: Path, shape: PublicShape) -> None:
    pytest.importorskip("jq", reason="the package jq is not installed")
    path = tmp_path / shape.file
    path.write_text(shape.text, encoding="utf-8")
    assert outcome_of(path) == (shape.outcome, shape.dialogues)
