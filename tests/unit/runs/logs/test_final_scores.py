"""test.json is read as it was written, also by an earlier version, unless it was changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from convo_cli.runs.directory import RunDirectory
from convo_cli.runs.logs.final_scores import FinalScores, read_final_scores, write_final_scores

EARLIER = {
    "format": 1,
    "checkpoint": "checkpoints/step-00000003",
    "step": 3,
    "weights": "ab",
    "data": [],
    "loss": 2.5,
    "perplexity": 12.25,
    "num_targets": 100,
    "metrics": {"f1": 0.5},
    "num_replies": 2,
    "num_split": 0,
    "cautions": [],
    "seconds": 1.5,
}
"""The fields before the scores had intervals and floors."""


def written_earlier(scores: dict[str, object]) -> str:
    text = json.dumps(scores, separators=(",", ":"))
    return json.dumps({**scores, "checksum": hashlib.sha256(text.encode()).hexdigest()})


def test_the_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.test.write_text(written_earlier(EARLIER), encoding="utf-8")
    scores = read_final_scores(run)
    assert scores is not None
    assert (scores.loss, dict(scores.intervals), scores.floor_source) == (2.5, {}, None)


@pytest.mark.parametrize("change", [{"loss": 2.4}, {"floors": {}}, {"intervals": {"f1": [0, 1]}}])
def test_a_changed_file_is_not_read(tmp_path: Path, change: dict[str, object]) -> None:
    run = RunDirectory(tmp_path)
    text = json.loads(written_earlier(EARLIER)) | change
    run.test.write_text(json.dumps(text), encoding="utf-8")
    assert read_final_scores(run) is None


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    scores = FinalScores.model_validate(
        {
            **EARLIER,
            "intervals": {"f1": (0.25, 0.75)},
            "floors": {"echo": {"f1": 0.1}},
            "floors_sentence": "all similarity scores are better than the floors",
        }
    )
    sealed = write_final_scores(run, scores)
    assert read_final_scores(run) == sealed
    assert sealed.intervals == {"f1": (0.25, 0.75)}
